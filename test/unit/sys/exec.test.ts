// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, readFileSync, readlinkSync } from "node:fs";
import { expect, test } from "vitest";
import { ExecError, forkCount, run } from "../../../src/sys/exec.ts";

const failure = async (promise: Promise<unknown>): Promise<ExecError> => {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ExecError)) throw new Error(`expected an ExecError, got ${String(error)}`);
  return error;
};

test("stdin goes in, stdout and stderr come back, and one fork is counted", async () => {
  const before = forkCount();
  const result = await run(["sh", "-c", "cat; echo oops >&2"], { stdin: "text in", timeoutMs: 5000 });
  expect(result).toEqual({ stdout: "text in", stderr: "oops\n" });
  expect(forkCount() - before).toBe(1);
});

test("no shell: arguments with metacharacters arrive as they are", async () => {
  const { stdout } = await run(["echo", "$(id); `id` > /dev/null", "a  b"], { timeoutMs: 5000 });
  expect(stdout).toBe("$(id); `id` > /dev/null a  b\n");
});

test("the environment is fixed", async () => {
  const { stdout } = await run(["env"], { timeoutMs: 5000 });
  const names = stdout
    .trim()
    .split("\n")
    .map((line) => line.split("=", 1)[0]);
  expect(names.sort()).toEqual(["LC_ALL", "PATH"]);
});

test("a non-zero exit carries status, stderr and the program", async () => {
  const error = await failure(run(["sh", "-c", "echo the reason >&2; exit 3"], { timeoutMs: 5000 }));
  expect(error).toMatchObject({ code: "EXEC_EXIT", exitCode: 3, stderr: "the reason", argv0: "sh" });
  expect(error.message).toContain("exit status 3: the reason");
});

test("only the end of a long stderr is kept", async () => {
  const error = await failure(run(["sh", "-c", "seq 20000 >&2; exit 1"], { timeoutMs: 10_000 }));
  expect(error.stderr.endsWith("\n19999\n20000")).toBe(true);
  expect(error.stderr.length).toBeLessThanOrEqual(4096);
});

test("a program that does not exist", async () => {
  const error = await failure(run(["/no/such/program"], { timeoutMs: 5000 }));
  expect(error).toMatchObject({ code: "EXEC_SPAWN", exitCode: undefined, argv0: "/no/such/program" });
  expect(error.message).toContain("/no/such/program");
});

test("a deadline ends the program and what it started", async () => {
  const started = Date.now();
  const error = await failure(run(["sh", "-c", "sleep 60 & echo $!; exec sleep 60"], { timeoutMs: 300 }));
  expect(error.code).toBe("EXEC_TIMEOUT");
  expect(error.message).toContain("300 ms");
  expect(Date.now() - started).toBeLessThan(10_000);
});

test("the grandchild dies with the deadline", async () => {
  const script = "sleep 60 & echo $! >&2; wait";
  const error = await failure(run(["sh", "-c", script], { timeoutMs: 500 }));
  const pid = error.stderr.trim();
  expect(pid).toMatch(/^\d+$/);
  // A zombie waiting for init is dead too.
  let state = "gone";
  for (let i = 0; i < 100; i++) {
    try {
      state = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.[0] ?? "";
    } catch {
      state = "gone";
    }
    if (state === "gone" || state === "Z") break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(["gone", "Z"]).toContain(state);
});

test("output over the bound is an error, not memory", async () => {
  const error = await failure(run(["sh", "-c", "yes | head -c 3000000"], { timeoutMs: 10_000, maxBytes: 1000 }));
  expect(error.code).toBe("EXEC_OUTPUT");
  expect(error.message).toContain("1000 bytes");
});

test("output of exactly the bound is fine", async () => {
  const { stdout } = await run(["head", "-c", "1000", "/dev/zero"], { timeoutMs: 5000, maxBytes: 1000 });
  expect(stdout.length).toBe(1000);
});

test("a program that does not read its stdin is judged by its status", async () => {
  await expect(run(["true"], { stdin: "x".repeat(1 << 20), timeoutMs: 5000 })).resolves.toEqual({
    stdout: "",
    stderr: "",
  });
});

test("killed by a signal", async () => {
  const error = await failure(run(["sh", "-c", "kill -TERM $$"], { timeoutMs: 5000 }));
  expect(error).toMatchObject({ code: "EXEC_SIGNAL", exitCode: undefined });
  expect(error.message).toContain("SIGTERM");
});

test("an fd that is no netns fails with nsenter's words", async () => {
  const fd = openSync("/dev/null", "r");
  try {
    const error = await failure(run(["true"], { netns: fd, timeoutMs: 5000 }));
    expect(error).toMatchObject({ code: "EXEC_EXIT", argv0: "true" });
    expect(error.stderr).toContain("nsenter");
    expect(readlinkSync(`/proc/self/fd/${fd}`)).toBe("/dev/null");
  } finally {
    closeSync(fd);
  }
});
