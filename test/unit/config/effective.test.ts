// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { effectiveSettings } from "../../../src/core/config/effective.ts";

function row(name: string, env: Record<string, string>, argv: readonly string[] = []) {
  const found = effectiveSettings(env, argv).find(({ setting }) => setting === name);
  return found === undefined ? undefined : [found.value, found.origin];
}

test("a value comes from its flag, else from its variable, else it is the default", () => {
  const env = { MONITORING_PORT: "1001" };
  expect(row("MONITORING_PORT", {})).toEqual(["15014", "default"]);
  expect(row("MONITORING_PORT", env)).toEqual(["1001", "env MONITORING_PORT"]);
  expect(row("MONITORING_PORT", env, ["--monitoring-port=1002"])).toEqual(["1002", "flag --monitoring-port"]);
  expect(row("EXCLUDE_NAMESPACES", { EXCLUDED_NAMESPACES: "a" })).toEqual(["a", "env EXCLUDED_NAMESPACES"]);
});

test("what is derived is shown as it turned out", () => {
  expect(row("AMBIENT_CNI_PROC_DIR", { AMBIENT_CNI_HOST_ROOT: "/" })).toEqual(["/proc", "default"]);
  expect(row("AMBIENT_CNI_DEBUG_SOCKET", { CNI_AGENT_RUN_DIR: "/run/x" })).toEqual([
    "/run/x/ambient-cni.sock",
    "default",
  ]);
});

test("settings without effect are shown where somebody has set them", () => {
  expect(row("REVISION", {})).toBeUndefined();
  expect(row("REVISION", { REVISION: "canary" })).toEqual(["canary", "env REVISION"]);
});

test("credentials are not shown, and nothing is endless", () => {
  const env = { AMBIENT_CNI_KUBECONFIG: "/x", REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE: "password=hunter2" };
  expect(row("REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE", env)).toEqual([
    "password=[redacted]",
    "env REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE",
  ]);
  expect(
    row("REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE", {
      REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE: "x".repeat(4000),
    })?.[0],
  ).toHaveLength(1003);
});

test("a wrong configuration has no values", () => {
  expect(() => effectiveSettings({ MONITORING_PORT: "many" }, [])).toThrow(/MONITORING_PORT="many"/);
});
