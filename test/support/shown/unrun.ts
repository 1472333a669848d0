// SPDX-License-Identifier: Apache-2.0
// Command lines of pages that no test runs, and why. A line that is neither here nor run fails test/unit/docs/shown.test.ts:
// run it (typed.ts, elsewhere.ts), or say here why not. What names files, values and objects of ours is compared with them there.

export interface Unrun {
  readonly why: string;
  readonly lines: readonly string[];
}

const NS = "-n istio-system";
const EXEC = `kubectl ${NS} exec ds/istio-cni-node --`;
const IMAGE = "--set image=registry.example/ambient-cni";

export const UNRUN: readonly Unrun[] = [
  {
    why: "no cluster; what it runs in the agent's container is typed in the playground",
    lines: [
      `${EXEC} ambient-cni check`,
      `${EXEC} ambient-cni monitor`,
      `${EXEC} ambient-cni pods`,
      `${EXEC} ambient-cni status`,
      `kubectl ${NS} exec daemonset/istio-cni-node -- ambient-cni pods --failing`,
      `kubectl ${NS} exec daemonset/istio-cni-node -- ambient-cni status`,
      `kubectl ${NS} exec istio-cni-node-x7k2p -- ambient-cni bugreport -o /var/run/istio-cni/report.tgz`,
      `kubectl ${NS} exec istio-cni-node-x7k2p -- ambient-cni status`,
    ],
  },
  {
    why: "no cluster; test/e2e/removal-by-hand.test.ts runs the command in a container like the one that it makes",
    lines: [
      `kubectl ${NS} debug node/worker-3 -it --profile=sysadmin --image=registry.example/ambient-cni:0.1.0 -- ambient-cni remove --host-root /host --dry-run`,
    ],
  },
  {
    why: "no cluster, and kubectl is no package of Debian 12 in a version that knows all of these",
    lines: [
      "kubectl apply -f install/sail/istiocni.yaml",
      "kubectl create clusterrole ambient-cni-check --verb=list --resource=networkpolicies.networking.k8s.io",
      "kubectl create clusterrolebinding ambient-cni-check --clusterrole=ambient-cni-check --serviceaccount=istio-system:istio-cni",
      "kubectl delete clusterrole,clusterrolebinding istio-cni",
      "kubectl describe pod",
      "kubectl get pods -A -o custom-columns='NS:.metadata.namespace,POD:.metadata.name,MESH:.metadata.annotations.ambient\\.istio\\.io/redirection'",
      "kubectl label namespace istio-system pod-security.kubernetes.io/enforce=privileged",
      "kubectl label namespace legacy istio.io/dataplane-mode=ambient",
      "kubectl label namespace shop istio-injection-",
      "kubectl label namespace shop istio-injection=enabled",
      "kubectl label namespace shop istio.io/dataplane-mode-",
      "kubectl label namespace shop istio.io/dataplane-mode=ambient",
      "kubectl label namespace shop istio.io/use-waypoint=waypoint",
      'kubectl patch istiocni default --type merge -p \'{"spec":{"values":{"cni":{"image":"registry.example/ambient-cni:0.1.0"}}}}\'',
      `kubectl ${NS} delete daemonset istio-cni-node --cascade=foreground`,
      `kubectl ${NS} delete pod node-debugger-worker-3-...`,
      `kubectl ${NS} delete serviceaccount istio-cni`,
      `kubectl ${NS} describe daemonset istio-cni-node`,
      `kubectl ${NS} describe pod -l k8s-app=istio-cni-node`,
      `kubectl ${NS} get daemonset istio-cni-node`,
      `kubectl ${NS} get ds istio-cni-node`,
      `kubectl ${NS} get pods -l app=ztunnel -o wide`,
      `kubectl ${NS} get pods -l k8s-app=istio-cni-node -o wide`,
      `kubectl ${NS} logs ds/istio-cni-node`,
      `kubectl ${NS} rollout status daemonset/istio-cni-node`,
      "kubectl -n shop get authorizationpolicy,requestauthentication,virtualservice,destinationrule,httproute,envoyfilter,wasmplugin,telemetry",
      "kubectl -n shop rollout restart deployment",
      "kubectl -n shop rollout restart deployment server",
      "kubectl -n shop rollout status deployment",
      "kubectl -n shop rollout status deployment server",
    ],
  },
  {
    why: "no cluster, and Helm can't be had here: docs/INSTALL.md says how it was tried",
    lines: [
      `helm rollback istio-cni ${NS}`,
      "helm show values install/chart",
      `helm template istio-cni install/chart ${IMAGE}:0.1.0 --set cniBinDri=/opt`,
      `helm uninstall istio-cni ${NS}`,
      `helm upgrade --install istio-cni install/chart ${NS} --create-namespace ${IMAGE}:0.1.0`,
      `helm upgrade istio-cni install/chart ${NS} --reset-then-reuse-values ${IMAGE}:0.1.0`,
      `helm upgrade istio-cni install/chart ${NS} --reset-then-reuse-values ${IMAGE}:0.2.0`,
      `helm upgrade istio-cni istio/cni ${NS} --reset-then-reuse-values --set image=install-cni`,
      `helm upgrade istio-cni istio/cni ${NS} --reuse-values -f install/values/stock-chart.yaml`,
      "npm run render:chart",
    ],
  },
  {
    why: "of another project's chart, in a cluster that has it",
    lines: [
      "helm upgrade cilium --set bpf.masquerade=false --set bpf.hostLegacyRouting=true",
      "helm upgrade cilium --set cni.exclusive=false",
    ],
  },
  {
    why: "no cluster, and istioctl can't be had here",
    lines: [
      "istioctl install --set profile=ambient -f install/values/istioctl.yaml",
      "istioctl waypoint apply -n shop --wait",
      "istioctl waypoint status",
      "istioctl ztunnel-config policies",
      "istioctl ztunnel-config workloads",
    ],
  },
  {
    why: "no container engine, node or registry to bring an image to; test/runtime imports the archive into containerd",
    lines: [
      "ctr -n k8s.io images import FILE",
      "kind load image-archive FILE",
      "skopeo copy --all oci-archive:dist/image/ambient-cni-<version>.oci.tar docker://...",
      "skopeo copy oci-archive:FILE docker://registry.example/ambient-cni:<version>",
    ],
  },
  {
    why: "takes minutes, a cross compiler's packages or Debian's archive of another day; the options are compared with install/image/main.ts",
    lines: [
      "npm run build:image -- --arch all",
      "npm run build:image -- --help",
      "npm run build:image -- --packages FILE --mirror 'http://snapshot.debian.org/archive/{archive}/20261128T000000Z'",
    ],
  },
  {
    why: "measures for minutes, on a machine that does nothing else",
    lines: [
      "npm run bench",
      "npm run bench -- cli",
      "npm run bench -- cri",
      "npm run bench -- datapath",
      "npm run bench -- datapath --engines none,ebpf,monitored",
      "npm run bench -- datapath --plot docs/performance/datapath.svg --markdown docs/PERFORMANCE.md",
      "npm run bench -- enroll",
      "npm run bench -- sidecar",
    ],
  },
  {
    why: "installs packages and builds before (scripts/prepare), which must not happen below running tests; what it runs then, tests run",
    lines: ["npm run demo", "npm run demo -- --keep", "npm run playground", "npm run docs"],
  },
  {
    why: "`ambient-cni sandbox run FILE` by the path of the program",
    lines: ["node dist/agent.mjs sandbox run FILE"],
  },
  {
    why: "of a person's machine",
    lines: ["ssh -L 8080:/var/run/istio-cni/ambient-cni.sock NODE", "apt-get source NAME=VERSION"],
  },
  {
    why: "beside an output that it made once, of a netns that is gone",
    lines: ["tc filter show dev eth0 egress", "ip route show table local"],
  },
  {
    why: "a yardstick of a benchmark",
    lines: ["node -e 0"],
  },
];

/** Code in a line of text that begins like a command and is none: settings, messages, names, parts of commands. */
export const NO_COMMANDS: readonly string[] = [
  "annotation ... is not allowed",
  "connection refused",
  "curl --unix-socket",
  "docker load",
  "export PATH",
  "fib daddr type local",
  "helm uninstall",
  "inet ambient-cni",
  "inet ambient-cni-sidecar",
  "istioctl install -f",
  "k3s ctr",
  "kill -9",
  "kubectl debug node/",
  "node dist/agent.mjs",
  "kubectl exec ... -- ambient-cni",
  "nothing redirects the pod's traffic into its sidecar",
  "redirection ... not by our rules",
];
