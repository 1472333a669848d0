// SPDX-License-Identifier: Apache-2.0
// A node without a bpffs, as kind's: the agent mounts one where the chart lets it, and says so where not.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { withSandbox } from "../support/sandbox.ts";

/** File systems at /sys/fs/bpf of a process' view. */
function bpffsOf(pid: number | "self"): string[] {
  return readFileSync(`/proc/${pid}/mountinfo`, "utf8")
    .split("\n")
    .filter((line) => line.split(" ")[4] === "/sys/fs/bpf");
}

async function restart(sandbox: Sandbox): Promise<void> {
  await sandbox.endAgent("SIGKILL");
  await sandbox.startAgent();
}

test("with CAP_SYS_CHROOT it is mounted on the node, once, and outlives the agent", async () => {
  const machine = bpffsOf("self");
  await withSandbox({ node: { bpffs: false }, agentCapabilities: ["SYS_CHROOT"] }, async (sandbox) => {
    expect(bpffsOf(sandbox.node.pid)).toEqual([]);
    await sandbox.startAgent();
    expect(await sandbox.engine()).toBe("ebpf");
    const mounted = bpffsOf(sandbox.node.pid);
    expect(mounted).toEqual([expect.stringMatching(/ \/ \/sys\/fs\/bpf rw,nosuid,nodev,noexec,relatime .*- bpf /)]);
    await restart(sandbox);
    expect(await sandbox.engine()).toBe("ebpf");
    expect(bpffsOf(sandbox.node.pid)).toEqual(mounted);
    expect(sandbox.agentLog().match(/a bpffs was mounted/g)).toHaveLength(1);
  });
  expect(bpffsOf("self")).toEqual(machine);
});

test("with the stock chart's capabilities the next engine is taken, and the reason names what is missing", async () => {
  await withSandbox({ node: { bpffs: false } }, async (sandbox) => {
    await sandbox.startAgent();
    expect(await sandbox.engine()).toBe("nftables");
    expect(bpffsOf(sandbox.node.pid)).toEqual([]);
    expect(sandbox.agentLog()).toMatch(/none is mounted.*CAP_SYS_ADMIN and CAP_SYS_CHROOT are needed/);
  });
});
