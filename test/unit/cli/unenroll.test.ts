// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import type { UnenrollReport } from "../../../src/core/report/manual.ts";
import { PODS } from "../../fixtures/reports.ts";
import { cli } from "../../support/cli-env.ts";
import { FakeAgent } from "../../support/fake-agent.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const NETNS = "/run/netns/lab";
const { pods: _, ...HEAD } = PODS;

test.each<[readonly string[], object, UnenrollReport["result"], string]>([
  [[], {}, "released", "released: nothing of ours is left in it"],
  [["--dry-run"], { dryRun: true }, "released", "would be released"],
  [["--dry-run"], { dryRun: true }, "draining", "would take no new connection, and be released when the open ones end"],
  [["--dry-run"], { dryRun: true }, "nothing", "nothing of ours is in it"],
])("unenroll %j asks %j, and says what is and what would be: %s", async (options, asked, result, said) => {
  using scratch = new ScratchDir();
  const socket = scratch.file("agent.sock");
  const report: UnenrollReport = { ...HEAD, netns: NETNS, ...asked, result };
  await using agent = await FakeAgent.http(socket, (response) => response.end(JSON.stringify(report)));
  const { status, stdout, stderr } = await cli(["unenroll", "--netns", NETNS, ...options, "--socket", socket]);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  expect(stdout).toContain(`${NETNS}: ${said}`);
  expect(agent.requests.map(({ body }) => JSON.parse(body))).toEqual([{ netns: NETNS, ...asked }]);
});
