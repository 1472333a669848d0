// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { once } from "node:events";
import { symlinkSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { PeerProcesses } from "../../../src/zds/processes.ts";
import { eventually } from "../../fakes/parts.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const stops: (() => void)[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
});

test("a process that was met is told while it is stopped, and not once it goes on or has ended", async () => {
  using scratch = new ScratchDir();
  // By its name, as where the kernel does not tell a socket's peer.
  symlinkSync("/bin/sleep", scratch.file("ztunnel"));
  const child = spawn(scratch.file("ztunnel"), ["60"], { stdio: "ignore" });
  stops.push(() => child.kill("SIGKILL"));
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const processes = new PeerProcesses("/proc");
  // Others on this machine may bear the name.
  const isStopped = () => processes.stopped().includes(pid);
  child.kill("SIGSTOP");
  await eventually("nobody has met it", () => !isStopped());
  processes.met({ connection: 1, pid: 0, pidfd: -1 });
  await eventually("it is stopped", isStopped);
  child.kill("SIGCONT");
  await eventually("it goes on", () => !isStopped());
  child.kill("SIGSTOP");
  await eventually("it is stopped again", isStopped);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(isStopped()).toBe(false);
});
