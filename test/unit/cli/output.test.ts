// SPDX-License-Identifier: Apache-2.0
// What people and scripts see, byte for byte: run with -u after a change that is meant, and read the difference.

import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import {
  CONFIG,
  ENGINES,
  FINE,
  INSPECT,
  LEVELS,
  LINES,
  PODS,
  PROOFS,
  RESETS,
  STATUS,
  VERSIONS,
} from "../../fixtures/reports.ts";
import { cli, type InProcessOptions, withAgent } from "../../support/cli-env.ts";

const golden = (name: string) => `golden/${name}.txt`;
const DOCUMENTS = {
  status: STATUS,
  pods: PODS,
  engines: ENGINES,
  config: CONFIG,
  log: LEVELS,
  lines: LINES,
  version: VERSIONS,
  inspect: INSPECT,
  verify: PROOFS,
  "reset-existing": RESETS,
};

/** `$ command`, what it wrote, and how it ended. */
async function transcript(socket: string, argv: readonly string[], options?: InProcessOptions): Promise<string> {
  const { status, stdout, stderr } = await cli([...argv, "--socket", socket], options);
  return `$ ambient-cni ${argv.join(" ")}\n${stdout}${stderr}[${status}]\n`;
}

describe("tables", () => {
  const commands = [
    ["status"],
    ["status", "--brief"],
    ["pods"],
    ["pods", "-o", "wide"],
    ["pods", "--failing"],
    ["pods", "--enrolled"],
    ["pods", "--all", "--sort", "age"],
    ["pods", "-n", "kube-system", "--all", "--sort", "ip"],
    ["pods", "web"],
    ["pods", "10.1.2.14"],
    ["pods", "4026532802"],
    ["pods", "cart"],
    ["pods", "shop/wep-7f4c"],
    ["pods", "nowhere"],
    ["pods", "web", "-n", "shop"],
    ["pods", "web", "-n", "kube-system"],
    ["pods", "web", "--failing"],
    ["pods", "kube-proxy-1"],
    ["engines"],
    ["engines", "-o", "wide"],
    ["config"],
    ["config", "--changed", "-o", "wide"],
    ["log"],
    ["log", "zds:debug", "zsd:debug"],
    ["log", "--last", "2"],
    ["version"],
    ["inspect", "web"],
    ["inspect", "web", "--diff"],
    ["inspect", "nowhere"],
    ["verify", "web"],
    ["verify", "--all", "--quick"],
    ["verify"],
    ["verify", "web", "--all"],
    ["reset-existing", "web"],
    ["reset-existing", "--all", "--dry-run"],
    ["reset-existing", "web", "batch-1", "--dry-run"],
    ["reset-existing"],
  ];
  test("are what they were", async () => {
    await withAgent(DOCUMENTS, async (socket) => {
      const parts: string[] = [];
      for (const argv of commands) parts.push(await transcript(socket, argv));
      await expect(parts.join("\n")).toMatchFileSnapshot(golden("tables"));
    });
  });

  test("have colours on a terminal, unless somebody says no", async () => {
    await withAgent(DOCUMENTS, async (socket) => {
      const coloured = await transcript(socket, ["status"], { isTTY: true });
      await expect(coloured).toMatchFileSnapshot(golden("colours"));
      expect(await transcript(socket, ["pods", "-o", "wide"], { isTTY: true })).not.toContain("\u001b");
      const plain = await transcript(socket, ["status"]);
      for (const [argv, environment] of [
        [["status", "--no-color"], {}],
        [["status"], { NO_COLOR: "1" }],
      ] as const) {
        const { stdout } = await cli([...argv, "--socket", socket], { isTTY: true, environment });
        expect(plain).toContain(stdout);
      }
    });
  });
});

test("JSON and YAML are the document itself, whichever side of the command the option is on", async () => {
  await withAgent({ status: STATUS }, async (socket) => {
    const after = await cli(["status", "-o", "json", "--socket", socket]);
    const before = await cli(["-o", "json", "--socket", socket, "status"]);
    expect(after).toEqual(before);
    expect(JSON.parse(after.stdout)).toEqual(STATUS);
    expect(parse((await cli(["status", "-o", "yaml", "--socket", socket])).stdout)).toEqual(STATUS);
  });
});

test("the exit status says what was found", async () => {
  await withAgent({ status: FINE, pods: { ...PODS, pods: PODS.pods.slice(0, 1) } }, async (socket) => {
    expect(await cli(["status", "--brief", "--socket", socket])).toMatchObject({
      status: 0,
      stdout: "ok: 12 pods enrolled\n",
    });
    expect((await cli(["pods", "--socket", socket])).status).toBe(0);
  });
});

test("--wait asks until all is well, or its time is over", async () => {
  const documents = { status: STATUS };
  await withAgent(documents, async (socket) => {
    const argv = ["status", "--brief", "--wait", "--timeout", "2s", "--socket", socket];
    const waits: number[] = [];
    const late = await cli(argv, { pause: async (ms) => void waits.push(ms) });
    expect(late).toEqual({ status: 1, stdout: "degraded: 1 of 13 pods failing\n", stderr: "" });
    expect(waits).toEqual([500, 500, 500, 500]);
    const well = await cli(argv, {
      pause: async () => {
        documents.status = FINE;
      },
    });
    expect(well).toEqual({ status: 0, stdout: "ok: 12 pods enrolled\n", stderr: "" });
  });
});

test("--watch shows it again and again until it is interrupted", async () => {
  await withAgent({ status: STATUS }, async (socket) => {
    let waits = 0;
    const watched = await cli(["status", "--brief", "--watch", "--socket", socket], {
      isTTY: true,
      pause: async () => {
        waits += 1;
        if (waits === 3) throw new Error("interrupted");
      },
    });
    expect(watched.stdout).toBe("\u001b[H\u001b[2Jdegraded: 1 of 13 pods failing\n".repeat(3));
  });
});

test("wrong usage ends with 2 and says what is meant", async () => {
  const parts: string[] = [];
  for (const argv of [
    ["statsu"],
    ["pods", "--failling"],
    ["pods", "-o", "xml"],
    ["pods", "--sort", "size"],
    ["pods", "one", "two"],
    ["status", "--timeout", "soon"],
    ["status", "--timeout", "0"],
    ["status", "--socket", ""],
    ["status", "--wait", "--watch"],
    ["check", "--category", "cni,kernal"],
    ["sandbox", "demo", "--engine", "bpf"],
    ["sandbox", "run", "story.yaml", "--chart", "1.23"],
  ]) {
    const { status, stdout, stderr } = await cli(argv);
    expect(stdout).toBe("");
    expect(status, stderr).toBe(2);
    parts.push(`$ ambient-cni ${argv.join(" ")}\n${stderr}`);
  }
  await expect(parts.join("\n")).toMatchFileSnapshot(golden("usage"));
});
