// SPDX-License-Identifier: Apache-2.0
// The rendered manifests are of today's chart, and the API server would take them.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { CASES, CHART_DIR, FIXTURE_DIR, sourceDigest } from "../../../scripts/render-chart.ts";
import { kubeProblems } from "../../support/kube-schema.ts";
import { type Manifest, RenderedChart } from "../../support/manifests.ts";

const MULTUS = "NetworkAttachmentDefinition";

test("each case has its fixture, and each fixture its case", () => {
  expect(readdirSync(FIXTURE_DIR).sort()).toEqual(
    Object.keys(CASES)
      .map((name) => `${name}.yaml`)
      .sort(),
  );
});

test("each platform has its case", () => {
  const platforms = readdirSync(join(CHART_DIR, "platforms")).map((file) => `platform-${file}`);
  expect(readdirSync(FIXTURE_DIR)).toEqual(expect.arrayContaining(platforms.filter((file) => !/default/.test(file))));
});

describe.each(Object.entries(CASES))("%s", (name, one) => {
  test("was rendered from the chart as it is: npm run render:chart", () => {
    const text = readFileSync(join(FIXTURE_DIR, `${name}.yaml`), "utf8");
    expect(/^# sources: (\w+)$/m.exec(text)?.[1]).toBe(sourceDigest(one));
  });

  test("is valid", () => {
    const { objects } = new RenderedChart(name);
    expect(objects.length).toBeGreaterThan(0);
    const problems = objects
      .filter(({ kind }) => kind !== MULTUS)
      .map((object) => [`${object.kind} ${object.metadata.name}`, kubeProblems(object)]);
    expect(problems.filter(([, found]) => found?.length !== 0)).toEqual([]);
  });

  test("keeps the labels' and annotations' rules", () => {
    for (const { metadata } of new RenderedChart(name).objects) {
      for (const value of Object.values(metadata.labels ?? {})) {
        expect(value).toMatch(/^([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?$/);
      }
      for (const value of Object.values(metadata.annotations ?? {})) expect(typeof value).toBe("string");
    }
  });
});

test("Multus' definition has nothing but its name: its plugin is found by that", () => {
  const found = new RenderedChart("platform-openshift").objects.find(({ kind }) => kind === MULTUS);
  expect(Object.keys(found ?? {}).sort()).toEqual(["apiVersion", "kind", "metadata"]);
  expect(found).toMatchObject({
    apiVersion: "k8s.cni.cncf.io/v1",
    metadata: { name: "istio-cni", namespace: "default" },
  });
});

test("the chart and the program have one version", () => {
  const { version } = JSON.parse(readFileSync(join(CHART_DIR, "../../package.json"), "utf8"));
  expect(parse(readFileSync(join(CHART_DIR, "Chart.yaml"), "utf8"))).toMatchObject({ version, appVersion: version });
});

describe("what the schemas refuse", () => {
  const changed = (change: (text: string) => string): Manifest =>
    JSON.parse(change(JSON.stringify(new RenderedChart("default").only("DaemonSet"))));

  test.each([
    [
      "a misspelt field",
      (text: string) => text.replace('"hostPath":', '"hostpath":'),
      /hostpath is no field of V1Volume/,
    ],
    [
      "a field one step too high",
      (text: string) => text.replace('"securityContext":{', '"privileged":true,$&'),
      /privileged is no field of V1Container/,
    ],
    ["a string for a number", (text: string) => text.replace('"periodSeconds":10', '"periodSeconds":"10"'), /integer/],
    [
      "a missing field",
      (text: string) => text.replace(/"selector":\{"matchLabels":\{[^}]*\}\},/, ""),
      /required property selector/,
    ],
  ])("%s", (_what, change, problem) => {
    expect(kubeProblems(changed(change)).join("\n")).toMatch(problem);
  });
});
