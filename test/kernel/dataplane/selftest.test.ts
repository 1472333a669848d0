// SPDX-License-Identifier: Apache-2.0
// The engine is chosen by what works: each thing taken away shows in the result, never as a crash.
import { join } from "node:path";
import { expect, test } from "vitest";
import { NativeError } from "../../../src/native/fault.ts";
import { native } from "../../../src/native/load.ts";
import { run } from "../../../src/sys/exec.ts";
import { guardFds } from "../../support/fds.ts";
import { startDataplane, withoutSysctls } from "../../support/lab-dataplane.ts";

guardFds();

/** What a dataplane says at start in a process of its own, after `prelude` in a mount namespace. */
async function startIn(prelude: string): Promise<Record<string, unknown>> {
  const start = join(import.meta.dirname, "../../support/lab-start.ts");
  const command = `${prelude} && cd '${process.cwd()}' && exec '${process.execPath}' --import tsx '${start}'`;
  const { stdout } = await run(["unshare", "--mount", "sh", "-c", command], { timeoutMs: 20_000 });
  return JSON.parse(stdout);
}

test("it works here, with nothing lost, and leaves no fd behind", async () => {
  const dataplane = await startDataplane();
  expect(dataplane.engine).toBe("nftables");
  expect(dataplane.tests).toEqual([
    { engine: "nftables", works: true, reason: undefined, losses: [], milliseconds: expect.any(Number) },
  ]);
  dataplane.close();
});

test("without nft there is no engine, and the reason says so", async () => {
  expect(await startIn("mount -t tmpfs none /usr/sbin")).toEqual({
    code: "NO_ENGINE",
    message: expect.stringMatching(/^no engine works on this node \(nftables: nft can't be started: .*No such file/),
  });
});

test("an nft that may not run is no engine either", async () => {
  const result = await startIn('mount --bind /dev/null "$(command -v nft)"');
  expect(result).toMatchObject({ code: "NO_ENGINE", message: expect.stringContaining("nft can't be started") });
});

test("an nft that does nothing is found out", async () => {
  const result = await startIn('mount --bind /bin/true "$(command -v nft)"');
  expect(result).toMatchObject({ code: "NO_ENGINE", message: expect.stringContaining("nftables: ") });
});

test("sysctls denied: it works, and says what that costs", async () => {
  const dataplane = await startDataplane(withoutSysctls);
  const [result] = dataplane.tests;
  expect(result?.works).toBe(true);
  expect(result?.losses).toHaveLength(4);
  expect(result?.losses[0]).toContain("net/ipv4/tcp_fwmark_accept: EROFS");
  expect(result?.losses[1]).toContain("tcp_migrate_req");
  expect(result?.losses[2]).toContain("ip_early_demux");
  expect(result?.losses[3]).toContain("nf_conntrack_tcp_timeout_close_wait");
  dataplane.close();
});

test("a node that gives no namespaces has no engine", async () => {
  const denied = {
    ...native(),
    vethAdd: () => {
      throw new NativeError("add veth: Operation not permitted (EPERM)", "EPERM", 1, "netlink");
    },
  };
  await expect(startDataplane(denied)).rejects.toMatchObject({
    code: "NO_ENGINE",
    message: expect.stringContaining("Operation not permitted"),
  });
});
