// SPDX-License-Identifier: Apache-2.0
import { randomBytes, randomUUID } from "node:crypto";
import { realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { AGENT_CAPABILITIES } from "../core/constants.ts";
import type { Child } from "../sys/child.ts";
import { cgroup2Root } from "./cgroup.ts";
import type { Chart } from "./charts.ts";
import type { SandboxNode } from "./node.ts";

/** Its pod lives on when the container restarts. */
const AGENT_POD_UID = randomUUID();

/** What the stock chart lets the agent do, and nothing else, in setpriv's words. */
export const CAPABILITY_SET = capabilitySet();

/**
 * Builds the container's file system and becomes the agent. $1 = new root, $2 = sandbox directory,
 * $3 = program bundle's directory, $4 = node's directory, $5 = where cgroup2 is mounted, rest = the
 * agent's command line.
 * pivot_root(".", ".") stacks the old root under the new one, where it can be detached.
 */
const JAIL = `
set -e
root=$1; dir=$2; app=$3; bin=$4; cgroup2=$5; shift 5
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p proc sys dev tmp run/istio-cni run/ztunnel var host/proc host/opt/cni/bin host/etc/cni/net.d
mkdir -p opt/cni/bin run/secrets/kubernetes.io/serviceaccount
ln -s /run var/run
for name in usr lib lib64 lib32 bin sbin etc; do
  if [ -L "/$name" ]; then cp -d "/$name" "$name"
  elif [ -d "/$name" ]; then mkdir -p "$name"; mount --bind "/$name" "$name"; mount -o remount,bind,ro "$name"; fi
done
for path in "$app" "$bin"; do
  case "$path/" in /usr/*|/lib/*|/bin/*) ;; *) mkdir -p ".$path"; mount --bind "$path" ".$path"; mount -o remount,bind,ro ".$path";; esac
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
[ -d ".$cgroup2" ] || { mount -t tmpfs tmpfs sys/fs/cgroup; mkdir -p ".$cgroup2"; }
mount -t cgroup2 cgroup2 ".$cgroup2"
mount -o remount,bind,ro ".$cgroup2"
mount --rbind /dev dev
mount --bind /proc host/proc
mount -o remount,bind,ro host/proc
mount --bind "$dir/opt/cni/bin" host/opt/cni/bin
mount --bind "$dir/etc/cni/net.d" host/etc/cni/net.d
mount --bind /run/istio-cni run/istio-cni
# The chart mounts these two with ambient only.
if [ "$AMBIENT_ENABLED" != false ]; then
  mkdir -p host/var/run/netns
  mount --rbind /run/netns host/var/run/netns
  mount --bind /run/ztunnel run/ztunnel
fi
mount --bind "$dir/secrets" run/secrets/kubernetes.io/serviceaccount
mount -o remount,bind,ro run/secrets/kubernetes.io/serviceaccount
[ -z "$AMBIENT_CNI_SANDBOX_PLUGIN" ] || { : > opt/cni/bin/istio-cni; mount --bind "$AMBIENT_CNI_SANDBOX_PLUGIN" opt/cni/bin/istio-cni; }
pivot_root . .
umount -l .
cd /
mount -o remount,ro /
ip link set lo up 2>/dev/null || true
unset AMBIENT_CNI_SANDBOX_PLUGIN
echo built
read -r _
exec setpriv --bounding-set "$AMBIENT_CNI_SANDBOX_CAPS" --inh-caps "$AMBIENT_CNI_SANDBOX_CAPS" -- env -u AMBIENT_CNI_SANDBOX_CAPS "$@"
`;

/** What an image of the agent holds. */
export interface AgentImage {
  /** dist/agent.mjs, or istio-cni's own agent. */
  readonly program: string;
  /** The CNI plugin's binary: /opt/cni/bin/istio-cni. */
  readonly plugin: string;
  /** `program` runs by itself, without Node. */
  readonly executable?: boolean;
}

export interface JailOptions extends AgentImage {
  readonly chart: Chart;
  readonly env: Readonly<Record<string, string>>;
  readonly args: readonly string[];
  /** Beyond those of the charts, such as SYS_CHROOT. */
  readonly capabilities?: readonly string[];
}

/**
 * Starts the agent as the stock chart would: own pid, mount and cgroup namespace, in the cgroup of a pod of its own,
 * own network unless the chart says hostNetwork, exactly the chart's capabilities and mounts, /proc/sys read-only, the
 * node's /proc read-only at /host/proc, no bpffs; and as ours, with a read-only root. The jail says `built` and waits
 * for a line before it becomes the agent, so that its network can be connected first.
 */
export function startJailed(node: SandboxNode, options: JailOptions): Child {
  const root = node.path("root");
  const program = realpathSync(options.program);
  const nodeBinary = realpathSync(process.execPath);
  const namespaces = ["--fork", "--pid", "--mount", "--cgroup", "--propagation=slave", "--kill-child=KILL"];
  if (!options.chart.hostNetwork) namespaces.push("--net");
  const launch = [nodeBinary, ...heapFlags(options.chart.env.GOMEMLIMIT), program, "install-cni"];
  const command = [...(options.executable ? [program] : launch), ...options.chart.args, ...options.args];
  return node.spawn(
    [
      "unshare",
      ...namespaces,
      "bash",
      "--norc",
      "-c",
      JAIL,
      "jail",
      root,
      node.dir,
      dirname(program),
      dirname(nodeBinary),
      cgroup2Root(),
      ...command,
    ],
    {
      env: {
        PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/cni/bin",
        AMBIENT_CNI_SANDBOX_CAPS: capabilitySet(options.capabilities),
        // As install/image/launcher.c.
        MALLOC_ARENA_MAX: "1",
        MALLOC_MMAP_THRESHOLD_: "131072",
        MALLOC_TRIM_THRESHOLD_: "131072",
        AMBIENT_CNI_SANDBOX_PLUGIN: realpathSync(options.plugin),
        ...options.chart.env,
        ...options.env,
      },
      cgroup: node.cgroups.container(AGENT_POD_UID, randomBytes(32).toString("hex")),
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
}

function capabilitySet(more: readonly string[] = []): string {
  return ["-all", ...[...AGENT_CAPABILITIES, ...more].map((name) => `+${name.toLowerCase()}`)].join(",");
}

const HEAP_CAP_MIB = 96;

/** The flags that the image's launcher gives V8: half of the memory limit, at most 96 MiB. */
function heapFlags(memoryLimit: string | undefined): string[] {
  const half = Math.floor(Number(memoryLimit ?? Number.NaN) / 2 / 2 ** 20);
  const cap = half > 0 ? Math.min(half, HEAP_CAP_MIB) : HEAP_CAP_MIB;
  return ["--max-semi-space-size=2", `--max-old-space-size=${cap}`];
}

/** Where the bundle and the plugin are when the program runs from `dist/`. */
export function builtFiles(bundle: string): AgentImage {
  return { program: bundle, plugin: join(dirname(bundle), "istio-cni") };
}
