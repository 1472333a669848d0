// SPDX-License-Identifier: Apache-2.0
// Renders the Helm chart into test/fixtures/chart. Helm is on no machine that tests run on, so the rendered
// manifests are kept, each with the digest of what it was made from; test/unit/chart compares that.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";

const ROOT = join(import.meta.dirname, "..");
export const CHART_DIR = join(ROOT, "install/chart");
export const FIXTURE_DIR = join(ROOT, "test/fixtures/chart");

const IMAGE = "registry.example/ambient-cni:0.1.0";

/** One way of installing the chart. */
interface ChartCase {
  /** What `--set-json` gives, by path. */
  readonly set?: Readonly<Record<string, unknown>>;
  readonly kubeVersion?: string;
}

const platform = (name: string): ChartCase => ({ set: { "global.platform": name } });

export const CASES: Readonly<Record<string, ChartCase>> = {
  default: {},
  "platform-gke": platform("gke"),
  "platform-k3d": platform("k3d"),
  "platform-k3s": platform("k3s"),
  "platform-microk8s": platform("microk8s"),
  "platform-minikube": platform("minikube"),
  "platform-openshift": platform("openshift"),
  // Helm tells which cluster it is by its version.
  "gke-by-version": { kubeVersion: "v1.31.4-gke.1256000" },
  "host-network": { set: { "ambient.shareHostNetworkNamespace": true } },
};

/** The command line of helm for a case, with paths relative to the repository. */
export function helmArguments({ set = {}, kubeVersion = "v1.31.0" }: ChartCase): string[] {
  const sets = Object.entries({ image: IMAGE, ...set }).flatMap(([path, value]) => [
    "--set-json",
    `${path}=${JSON.stringify(value)}`,
  ]);
  return ["template", "istio-cni", "install/chart", "-n", "istio-system", "--kube-version", kubeVersion, ...sets];
}

/** Of everything that a case is rendered from. */
export function sourceDigest(one: ChartCase): string {
  const hash = createHash("sha256").update(JSON.stringify(helmArguments(one)));
  for (const path of filesBelow(CHART_DIR)) {
    hash.update(`\n${relative(CHART_DIR, path)}\n`).update(readFileSync(path));
  }
  return hash.digest("hex");
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

function render(helm: string): void {
  const rendered = Object.entries(CASES).map(([name, one]) => {
    const args = helmArguments(one);
    const manifests = execFileSync(helm, args, { cwd: ROOT, encoding: "utf8" });
    const quoted = args.map((arg) => (/^[\w./:=-]+$/.test(arg) ? arg : `'${arg}'`)).join(" ");
    const head = `# Made by \`npm run render:chart\`: helm ${quoted}\n# sources: ${sourceDigest(one)}\n`;
    return { name, text: head + manifests };
  });
  rmSync(FIXTURE_DIR, { recursive: true, force: true });
  mkdirSync(FIXTURE_DIR, { recursive: true });
  for (const { name, text } of rendered) writeFileSync(join(FIXTURE_DIR, `${name}.yaml`), text);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) render(process.env.HELM ?? "helm");
