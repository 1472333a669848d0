// SPDX-License-Identifier: Apache-2.0
// What test/e2e/docs.test.ts types in the playground of docs/START.md, as the pages show it, and what must come of it.
import type { Typed } from "./line.ts";
import { RECORDED, STREAMS } from "./streams.ts";

const POD_TABLE = /^NAMESPACE +POD +IP +NETNS +MESH +DATAPLANE +ZTUNNEL +SINCE +/;
const WEB = /^shop +web +10\.66\.0\.2(,\S+)? +\d+ +enrolled +ebpf +acked /m;
const CART = /^shop +cart +10\.66\.0\.3(,\S+)? +\d+ +enrolled +ebpf +acked /m;
const STATUS = [
  /^ambient-cni \S+ {2}node node1 /,
  /^ {2}ztunnel +OK +1 connected, 2 acked/m,
  /^ {2}pods +OK +2 enrolled, 2 not/m,
];
const WHOLE = /^[1-9]\d* passed, \d+ warnings?, 0 failed/m;
/** Of nothing else than what was asked for. */
const only = (...lines: readonly RegExp[]): RegExp =>
  new RegExp(`^${lines.map(({ source }) => `(?:${source})\n`).join("")}$`);
const INSPECTED = [
  /^shop\/web\n {2}uid +\S+\n {2}addresses +10\.66\.0\.2, fd66::2\n/,
  /^ {2}√ capture +ebpf, captured$/m,
  /^ {2}√ listener 15008 {2}HBONE: ztunnel/m,
];
const PROVED = /^PASS shop\/web: 16 of 16 proved in/m;
const STEPS = /^1\. prepare routes\n[\s\S]*^2\. add to ztunnel\n[\s\S]*^4\. capture\n[\s\S]*^5\. annotate$/m;
const FAILING = /^NAMESPACE +POD .* REASON\n$/;
const NONE = /^none of 4 pods of this node\n$/;
const traced = (destination: string) => [
  new RegExp(`^shop/web > ${destination}\n {2}√ decision +\\S+ ms {2}ztunnel \\(outbound\\)`),
  new RegExp(
    `^ {2}√ answer +\\S+ ms {2}by ztunnel at port 15001; the application is shown ${destination} as its peer$`,
    "m",
  ),
  /^handed to ztunnel$/m,
];

/** They read, in any order and while others are at work. */
export const LOOKS: readonly Typed[] = [
  { line: "ambient-cni status", says: STATUS },
  { line: "ambient-cni status --brief", says: [only(/ok: 2 pods enrolled/)] },
  { line: "ambient-cni status --wait --timeout 2m", says: STATUS },
  { line: "ambient-cni pods", says: [POD_TABLE, WEB, CART, /^legacy +batch .* no /m] },
  { line: "ambient-cni pods -n shop", says: [only(/NAMESPACE .*/, /shop +cart .*/, /shop +web .*/)] },
  { line: "ambient-cni pods -o wide", says: [/^NAMESPACE .* UID +PHASE +OLDER +ANNOTATION +REASON\n/, WEB, CART] },
  { line: "ambient-cni pods -o json", says: [/"schemaVersion": 1,/, /"name": "web",[^}]*"mesh": "enrolled",/] },
  // No pod is, and none is shown.
  { line: "ambient-cni pods --failing", says: [FAILING], notes: NONE },
  { line: "ambient-cni pods --failing -o wide", says: [FAILING], notes: NONE },
  { line: "ambient-cni pods 10.66.0.2", says: [only(/NAMESPACE .*/, /shop +web +10\.66\.0\.2 .*/)] },
  { line: "ambient-cni config --changed", says: [/^SETTING +ORIGIN +VALUE\n/, /^NODE_NAME +env NODE_NAME +node1$/m] },
  {
    line: "ambient-cni config -o wide",
    says: [/^SETTING +ORIGIN +STATUS +VALUE\n/, /^AMBIENT_CNI_ENGINE +default +honoured +auto$/m],
  },
  { line: "ambient-cni config -o yaml", says: [/^schemaVersion: 1\n/, /^ {2}- setting: AMBIENT_CNI_ENGINE\n/m] },
  {
    line: "ambient-cni engines",
    says: [/^ENGINE +WORKS +NEW PODS .*\nebpf +yes +yes +2 /, /^nftables +yes /m, /^iptables +yes /m],
  },
  { line: "ambient-cni engines -o wide", says: [/^ebpf +yes +yes +2 /m, /^iptables: an application whose listener/m] },
  { line: "ambient-cni inspect shop/web", says: INSPECTED },
  { line: "ambient-cni inspect POD", as: "ambient-cni inspect shop/web", says: INSPECTED },
  { line: "ambient-cni inspect shop/web --diff", says: [only(/shop\/web: no disagreement/)] },
  {
    line: "ambient-cni inspect POD --diff",
    as: "ambient-cni inspect shop/web --diff",
    says: [only(/shop\/web: no disagreement/)],
  },
  { line: "ambient-cni inspect 10.66.0.2 --diff", says: [only(/shop\/web: no disagreement/)] },
  {
    line: "ambient-cni inspect shop/web --netns-shell",
    as: "ambient-cni inspect shop/web --netns-shell <<< 'ip -brief address show eth0'",
    says: [/^eth0@\S+ +UP +10\.66\.0\.2\/24 /],
  },
  {
    line: "ambient-cni inspect web --netns-shell -- ss -ltn",
    says: [/ \S*:15001 /, / \S*:15006 /, / \S*:15008 /, / \S*:8080 /],
  },
  {
    line: "ambient-cni inspect POD --netns-shell -- nft list ruleset",
    as: "ambient-cni inspect shop/web --netns-shell -- nft list ruleset",
    says: [/^$/],
  },
  {
    line: "ambient-cni inspect POD --netns-shell -- curl -s localhost:8080/healthz",
    as: "ambient-cni inspect shop/web --netns-shell -- curl -s localhost:8080/healthz",
    says: [/^\{"server":"web","clientSeen":"127\.0\.0\.1:\d+"/],
  },
  { line: "ambient-cni log", says: [/^SCOPE +LEVEL +CONFIGURED\n/, /^zds +info$/m, /^kube +info$/m] },
  { line: "ambient-cni log --last 100", says: [/ info +cni-agent +captured +pod=shop\/web +engine=ebpf /] },
  {
    line: "ambient-cni plan shop/web",
    says: [/^shop\/web\n.*\n {2}now +nothing: captured by ebpf as it should be\n {2}engine +ebpf\n/, STEPS],
  },
  { line: "ambient-cni plan POD", as: "ambient-cni plan shop/web", says: [/^shop\/web\n/, STEPS] },
  {
    line: "ambient-cni plan web --engine nftables",
    says: [/^shop\/web\n.*\n.*\n {2}engine +nftables\n/, STEPS, /table inet ambient-cni/],
  },
  { line: "ambient-cni plan batch --anyway", says: [/^legacy\/batch\n {2}because +not in the mesh: /, STEPS] },
  { line: "ambient-cni reset-existing --all --dry-run", says: [only(/no connection is older than its pod's capture/)] },
  { line: "ambient-cni version", says: [/^client +0\.1\.0\nagent +0\.1\.0\nkernel +\S+\n/] },
  { line: "ambient-cni version -o json", says: [/^\{\n {2}"client": "0\.1\.0",/] },
  { line: "ambient-cni --version", says: [only(/0\.1\.0/)] },
  // As a shell would read them: this one has none but bash.
  {
    line: "ambient-cni completion bash",
    as: "ambient-cni completion bash | tee completion && bash --norc -n completion",
    says: [/^complete -o default -F _ambient_cni ambient-cni$/m],
  },
  { line: "ambient-cni completion zsh", says: [/^#compdef ambient-cni\n/, /^compdef _ambient_cni ambient-cni$/m] },
  { line: "ambient-cni completion fish", says: [/^complete -c ambient-cni -f -a /m] },
];

/** They make connections in pods or scratch pods: one after the other, and what they print may stand on what the ones before did. */
export const PROOFS: readonly Typed[] = [
  {
    line: "ambient-cni verify shop/web",
    says: [/^ {2}√ outbound IPv4 +192\.0\.2\.1:9 is answered by ztunnel/m, PROVED],
  },
  { line: "ambient-cni verify POD", as: "ambient-cni verify shop/web", says: [PROVED] },
  { line: "ambient-cni verify --all", says: [PROVED, /^PASS shop\/cart: 16 of 16/m, /^ {2}√ hbone IPv6 /m] },
  {
    line: "ambient-cni verify --all --quick",
    says: [only(/PASS shop\/(?:web|cart): .*/, /PASS shop\/(?:web|cart): .*/)],
  },
  {
    line: "ambient-cni check",
    says: [
      /^kernel\n/,
      /^cni\n/m,
      /^ {2}√ a captured pod's traffic lands where it should: shop\/\w+: 16 proofs$/m,
      WHOLE,
    ],
  },
  { line: "ambient-cni check --pre", says: [/^kernel\n {2}√ an engine captures a scratch pod/, WHOLE] },
  {
    line: "ambient-cni check --category cni",
    says: [/^cni\n {2}√ the plugin's binary is where runtimes look for it/, WHOLE],
  },
  {
    line: "ambient-cni check --category ztunnel",
    says: [/^ztunnel\n {2}√ a ztunnel is connected and has the node's pods: .* 2 pods acked$/m, WHOLE],
  },
  { line: "ambient-cni check --category cni,pods", says: [/^cni\n/, /^pods\n/m, WHOLE] },
  { line: "ambient-cni engines --now", says: [/^source: kernel \(tried now\)\n/, /^ebpf +yes +\? +2 /m] },
  { line: "ambient-cni trace shop/web 10.96.0.20:80", says: traced("10\\.96\\.0\\.20:80") },
  { line: "ambient-cni trace shop/web shop/cart:8080", says: traced("10\\.66\\.0\\.3:8080") },
  {
    line: "ambient-cni trace shop/web '[fd66::3]:8080' -o json",
    says: [/^ {2}"destination": "\[fd66::3\]:8080",$/m, /^ {2}"verdict": "ztunnel",$/m],
  },
  {
    line: "ambient-cni bugreport -o report.tgz",
    says: [/^collected \d+ items in .*; without credentials\nreport\.tgz\n$/],
  },
  {
    line: "ambient-cni bugreport --pod shop/web --redact",
    says: [/; without credentials and given values\nambient-cni-node1-\d+T\d+Z\.tgz\n$/],
  },
  { line: "ambient-cni bugreport -o /var/run/istio-cni/report.tgz", says: [/\n\/var\/run\/istio-cni\/report\.tgz\n$/] },
  { line: "ambient-cni status --from report.tgz", says: [/ source: report \(report\.tgz\)\n/, ...STATUS] },
];

/** Capturing by hand; before it, a network namespace `lab` is made on the node. */
const LAB = "--netns /run/netns/lab";
const RELEASED = only(/\/run\/netns\/lab: released: nothing of ours is left in it/);

/** They change something, one after the other. */
export const CHANGES: readonly Typed[] = [
  { line: "ambient-cni log zds:debug", says: [/^zds +debug +info$/m, /^kube +info$/m] },
  { line: "ambient-cni log zds:debug kube:warn", says: [/^zds +debug +info$/m, /^kube +warn +info$/m] },
  { line: "ambient-cni log zds:debug cni-agent:debug", says: [/^zds +debug +info$/m, /^cni-agent +debug +info$/m] },
  { line: "ambient-cni log --reset", says: [/^zds +info$/m, /^kube +info$/m, /^cni-agent +info$/m] },
  { line: "ambient-cni reset-existing shop/web", says: [only(/shop\/web: 0 reset/)] },
  {
    line: "ambient-cni reset-existing POD",
    as: "ambient-cni reset-existing shop/web",
    says: [only(/shop\/web: 0 reset/)],
  },
  {
    line: `ambient-cni enroll ${LAB} --ip 10.9.0.2 --dry-run`,
    says: [/^manual-\d+\n.*: captured by hand: \/run\/netns\/lab\n/, /^3\. capture\n/m],
  },
  {
    line: `ambient-cni enroll ${LAB} --ip 10.9.0.2 --ip fd00:9::2`,
    says: [/^manual-\d+ is captured by nftables \(10\.9\.0\.2, fd00:9::2\)$/m, /^no ztunnel serves it/m],
  },
  { line: "ambient-cni pods", says: [/^- +manual-\d+ +10\.9\.0\.2 +\d+ +manual +nftables /m] },
  {
    line: "ambient-cni unenroll --netns /proc/4711/ns/net --dry-run",
    says: [only(/\/proc\/\d+\/ns\/net: would be released/)],
  },
  { line: `ambient-cni unenroll ${LAB}`, says: [RELEASED] },
  {
    line: `ambient-cni enroll ${LAB} --ip 10.9.0.2 --workload shop/lab`,
    says: [/^manual-\d+ is captured by nftables \(10\.9\.0\.2\)\nztunnel serves it\n$/m],
  },
  { line: `ambient-cni unenroll ${LAB}`, says: [RELEASED] },
  {
    line: "ambient-cni enroll --netns PATH --ip IP",
    as: `ambient-cni enroll ${LAB} --ip 10.9.0.2 --ip fd00:9::2`,
    says: [],
  },
];

/** The last: after these there is no agent. */
export const REMOVAL: readonly Typed[] = [
  {
    line: "ambient-cni remove --dry-run",
    says: [/^would give back the CNI configuration in /m, /^pod shop\/web stays captured \(ebpf\)$/m],
  },
  {
    line: "ambient-cni remove",
    says: [/^gave back the CNI configuration in /m, /^pod shop\/web stays captured \(ebpf\)$/m],
  },
  {
    line: "ambient-cni remove --uncapture",
    // By default what is open between the pods has 5 s.
    as: "AMBIENT_CNI_DRAIN_SECONDS=0 ambient-cni remove --uncapture",
    says: [/^released pod \S*web\S*/m, /^released pod \S*cart\S*/m],
  },
];

/** Another sandbox while the playground stays: `bug.yaml` is a file of somebody's. */
export const ANOTHER: Typed = {
  line: "ambient-cni sandbox run bug.yaml --engine iptables --json",
  says: [/^ {2}"passed": 2,\n {2}"failed": 0,$/m, /"title": "A bug",/, /"evidence": "agent of node1: iptables"/],
};

/** The playground itself, which stays up until Ctrl-C. */
export const KEPT = {
  line: "ambient-cni sandbox run bug.yaml --keep",
  as: "ambient-cni sandbox run scenarios/playground.yaml --keep",
};

/** Lines of docs/START.md that only it has; the test takes them from the page, and checks them with what the page says about them. */
export const START_PAGE: readonly string[] = [
  "ambient-cni monitor --pod shop/web",
  "ambient-cni inspect shop/web --netns-shell -- curl -s http://10.66.0.3:8080/",
];

/** docs/MONITOR.md's: the test compares with all that the page shows. */
export const TRACE_PAGE: readonly string[] = [
  "ambient-cni trace shop/web batch:9090",
  "ambient-cni trace shop/web cart:8080",
];

export const TYPED: readonly Typed[] = [...LOOKS, ...PROOFS, ...STREAMS, ...RECORDED, ...CHANGES, ...REMOVAL, ANOTHER];
