// SPDX-License-Identifier: Apache-2.0
// Value files for installations that are not ours: istio-cni's chart, istioctl, the Sail operator. What their
// templates make of them was looked at by hand, docs/INSTALL.md says with which versions.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv } from "ajv";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { CHART_DIR } from "../../../scripts/render-chart.ts";
import { environmentWarnings } from "../../../src/core/config/env.ts";
import { parseConfig } from "../../../src/core/config/parse.ts";
import { RenderedChart } from "../../support/manifests.ts";

interface Values {
  readonly image: string;
  readonly resources: unknown;
  readonly env: Readonly<Record<string, unknown>>;
}

const read = (path: string) => parse(readFileSync(join(CHART_DIR, "..", path), "utf8"));
const stock: Values = read("values/stock-chart.yaml");
const istioctl = read("values/istioctl.yaml");
const sail = read("sail/istiocni.yaml");

describe.each<[string, Values]>([
  ["istio-cni's chart", stock],
  ["istioctl", istioctl.spec.values.cni],
  ["the Sail operator", sail.spec.values.cni],
])("%s", (_name, values) => {
  test("gets the image, the memory and the settings that our chart has", () => {
    const { container } = new RenderedChart("default");
    expect(values.image).toBe(container.image);
    expect(container.resources).toMatchObject(Object(values.resources));
  });

  test("a whole reference: no hub, tag or variant is added", () => {
    expect(values.image).toMatch(/^[^/]+\/.+:[^/]+$/);
  });

  test("passes settings that the agent knows, as strings", () => {
    for (const value of Object.values(values.env)) expect(typeof value).toBe("string");
    const env = { ...(values.env as Record<string, string>), NODE_NAME: "node-1" };
    expect(environmentWarnings(env)).toEqual([]);
    expect(parseConfig(env, []).config.engine).toBe("auto");
  });

  test("needs no name that the other two ways do not have", () => {
    expect(Object.keys(values).sort()).toEqual(["env", "image", "resources"]);
  });
});

test("one file serves the stock chart and ours", () => {
  const valid = new Ajv({ allowUnionTypes: true }).compile(
    JSON.parse(readFileSync(join(CHART_DIR, "values.schema.json"), "utf8")),
  );
  expect(valid(stock)).toBe(true);
});

test("Sail's resource has the only name that the operator takes, and the ambient profile", () => {
  expect(sail).toMatchObject({
    apiVersion: "sailoperator.io/v1",
    kind: "IstioCNI",
    metadata: { name: "default" },
    spec: { profile: "ambient" },
  });
});
