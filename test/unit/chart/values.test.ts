// SPDX-License-Identifier: Apache-2.0
// values.schema.json takes what istio-cni's chart takes and refuses, by name, what neither chart knows.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv } from "ajv";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { CASES, CHART_DIR } from "../../../scripts/render-chart.ts";

const read = (path: string): unknown => parse(readFileSync(join(CHART_DIR, path), "utf8"));
const valid = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(
  JSON.parse(readFileSync(join(CHART_DIR, "values.schema.json"), "utf8")),
);

/** What Helm would say, one line for each error. */
function complaints(values: unknown): string[] {
  if (valid(values)) return [];
  return (valid.errors ?? []).map(({ instancePath, message, params }) =>
    [instancePath, message, params.additionalProperty ?? params.propertyName].filter(Boolean).join(" "),
  );
}

test("the defaults are valid, and so are the platforms' values", () => {
  expect(complaints(read("values.yaml"))).toEqual([]);
  for (const file of readdirSync(join(CHART_DIR, "platforms"))) {
    expect([file, complaints(read(`platforms/${file}`))]).toEqual([file, []]);
  }
});

test("so is every value that a fixture was made with", () => {
  for (const [name, { values }] of Object.entries(CASES)) expect([name, complaints(values ?? {})]).toEqual([name, []]);
});

/** Every value of istio-cni's chart, 1.24 to 1.31, by path. */
const UPSTREAM = `affinity ambient.configDir ambient.dnsCapture ambient.enableAmbientDetectionRetry
  ambient.enabled ambient.enablementSelectors ambient.ipv6 ambient.reconcileIptablesOnStartup
  ambient.shareHostNetworkNamespace chained cniBinDir cniConfDir cniConfFileName cniNetnsDir daemonSetLabels env
  excludeNamespaces global.defaultResources global.hub global.imagePullPolicy global.imagePullSecrets
  global.logAsJson global.logging.level global.nativeNftables global.networkPolicy.enabled global.platform
  global.resourceScope global.tag global.variant hub image istioOwnedCNIConfig istioOwnedCNIConfigFileName
  logging.level ownerName podAnnotations podLabels profile provider pullPolicy repair.brokenPodLabelKey
  repair.brokenPodLabelValue repair.deletePods repair.enabled repair.hub repair.initContainerName repair.labelPods
  repair.repairPods repair.tag resourceQuotas.enabled resourceQuotas.pods resources revision seLinuxOptions
  seccompProfile tag terminationGracePeriodSeconds tolerations updateStrategy useAppArmorAnnotation variant
  compatibilityVersion platform`.split(/\s+/);

describe("a value of istio-cni's chart is known", () => {
  const MISFIT = { misfit: 1 };
  test.each(UPSTREAM)("%s", (path) => {
    const keys = path.split(".");
    const at = (value: unknown) => keys.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
    // Whatever the type: the name itself is never the complaint.
    const unknown = [...complaints(at(MISFIT)), ...complaints({ cni: at(MISFIT) })].filter((line) =>
      line.endsWith(` ${keys.at(-1)}`),
    );
    expect(unknown).toEqual([]);
  });
});

describe("what is refused, by name", () => {
  test.each<[unknown, RegExp]>([
    [{ cniBinDri: "/opt" }, /additional properties cniBinDri/],
    [{ cni: { cniBinDri: "/opt" } }, /^\/cni must NOT have additional properties cniBinDri/],
    [{ ambient: { enabeld: true } }, /^\/ambient must NOT have additional properties enabeld/],
    [{ repair: { repairPod: true } }, /^\/repair .* repairPod$/],
    [{ bpffs: { mounted: true } }, /^\/bpffs .* mounted$/],
    [{ seLinuxOptions: { typ: "spc_t" } }, /^\/seLinuxOptions .* typ$/],
    [{ cniBinDir: "opt/cni/bin" }, /^\/cniBinDir must match pattern/],
    [{ cniConfFileName: "../10-calico.conflist" }, /^\/cniConfFileName must match pattern/],
    [{ provider: "Multus" }, /^\/provider must be equal to one of/],
    [{ chained: "false" }, /^\/chained must be boolean/],
    [{ excludeNamespaces: "kube-system" }, /^\/excludeNamespaces must be array/],
    [{ env: { "ambient-cni": "x" } }, /^\/env property name must be valid ambient-cni$/m],
    [{ env: { A: { b: 1 } } }, /^\/env\/A must be string,boolean,integer/],
    [{ global: { resourceScope: "none" } }, /^\/global\/resourceScope must be equal to one of/],
    [{ terminationGracePeriodSeconds: 0 }, /^\/terminationGracePeriodSeconds must be >= 1/],
  ])("%j", (values, complaint) => {
    expect(complaints(values).join("\n")).toMatch(complaint);
  });
});
