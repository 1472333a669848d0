// SPDX-License-Identifier: Apache-2.0
import { cgroup1Hierarchies, cgroup2Root } from "./cgroup.ts";

/**
 * pid 1 of a node: reaps orphans, and ends (taking the node with it) when our end of stdin closes. The machine's
 * mounts of cgroups and bpffs go: the node's hierarchies begin at its own cgroup, as on a node that is a
 * container (kind). $1 is the node's directory, $2 where cgroup2 is mounted, $3 "yes" for a bpffs, the rest
 * RUNTIME's.
 */
const BEGIN = `
set -e
umount -l "$2"
mount -t cgroup2 cgroup2 "$2"
mkdir -p "$2/system/init"
echo 0 > "$2/system/init/cgroup.procs"
while read -r _ _ _ _ point rest; do
  case "$rest" in *" - bpf "*) umount -l "$point";; esac
done < /proc/self/mountinfo
[ "$3" != yes ] || mount -t bpf -o mode=700 bpf /sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/istio-cni /run/ztunnel
mount --bind /run/netns /run/netns
mount --make-shared /run/netns
mount --bind "$1/run/istio-cni" /run/istio-cni
mount --bind "$1/run/ztunnel" /run/ztunnel
ip link set lo up
`;

/**
 * For a container runtime: the v1 hierarchies ($4 = options of the first, $5 = its mount point, and so on), and a disk
 * of the node's own, which it keeps over a reboot, over what a runtime and kubelet write to.
 */
const RUNTIME = `
disk=$1; shift 3
while [ $# -gt 1 ]; do
  umount -l "$2"
  mount -t cgroup -o "$1" cgroup "$2"
  shift 2
done
for name in etc opt var; do
  mkdir -p "$disk/disk/$name" "$disk/disk/.$name"
  mount -t overlay -o "lowerdir=/$name,upperdir=$disk/disk/$name,workdir=$disk/disk/.$name" overlay "/$name"
done
mkdir -p /opt/cni/bin /etc/cni/net.d /var/log/pods
mount --bind "$disk/opt/cni/bin" /opt/cni/bin
mount --bind "$disk/etc/cni/net.d" /etc/cni/net.d
`;

/** Without that disk, what is logged there dies with the node. kubelet's directory of logs names the pods. */
const LOGS = `
mount -t tmpfs -o mode=755 tmpfs /var/log
`;

const END = `
mkdir -p /var/log/pods
echo ready
while read -r _; do :; done
`;

/** The command line of a node's pid 1. */
export function initCommand(dir: string, options: { readonly bpffs: boolean; readonly runtime: boolean }): string[] {
  const script = options.runtime ? BEGIN + RUNTIME + END : BEGIN + LOGS + END;
  const hierarchies = options.runtime ? cgroup1Hierarchies().flatMap(({ options, point }) => [options, point]) : [];
  const bpffs = options.bpffs ? "yes" : "no";
  return ["bash", "--norc", "-c", script, "init", dir, cgroup2Root(), bpffs, ...hierarchies];
}
