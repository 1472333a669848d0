// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { once } from "node:events";
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

/** The event loop stands still until `done`. */
function standStill(done: () => boolean): void {
  const nap = new Int32Array(new SharedArrayBuffer(4));
  while (!done()) Atomics.wait(nap, 0, 0, 10);
}

test("a deadline counts from the start of the program, not of what ran before it", async () => {
  const began = performance.now();
  standStill(() => performance.now() - began > 2000);
  await run(["sleep", "0.1"], { timeoutMs: 2000 });
});

test("a program that ended in time has ended, also when nobody looked until the deadline", async () => {
  const began = performance.now();
  const ending = run(["sh", "-c", "echo $$"], { timeoutMs: 200 });
  const children = () => readFileSync("/proc/thread-self/children", "utf8").trim().split(" ");
  const ended = (pid: string) => readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  standStill(() => performance.now() - began > 300 && children().some(ended));
  expect((await ending).stdout).toMatch(/^\d+\n$/);
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

test("an fd that is no netns is refused before anything is started", async () => {
  const fd = openSync("/dev/null", "r");
  try {
    const error = await failure(run(["true"], { netns: fd, timeoutMs: 5000 }));
    expect(error).toMatchObject({ code: "EXEC_NETNS", argv0: "true", exitCode: undefined });
    expect(error.message).toMatch(/network namespace fd \d+: .*\(E(INVAL|PERM)\)/);
    expect(readlinkSync(`/proc/self/fd/${fd}`)).toBe("/dev/null");
  } finally {
    closeSync(fd);
  }
});

test("stdin is a file of its own: it can be opened again, and need not be read", async () => {
  const { stdout } = await run(["sh", "-c", "cat /dev/stdin; cat"], { stdin: "again ", timeoutMs: 5000 });
  expect(stdout).toBe("again again ");
});

test("without stdin the program reads nothing", async () => {
  expect(await run(["cat"], { timeoutMs: 5000 })).toEqual({ stdout: "", stderr: "" });
});

test("the program has its three fds and no other, its own session, and no signal blocked or ignored", async () => {
  const fd = openSync("/dev/null", "r");
  try {
    const { stdout } = await run(["grep", "-E", "^(SigBlk|SigIgn|NSpid|NSsid):", "/proc/self/status"], {
      timeoutMs: 5000,
    });
    const field = (name: string) => new RegExp(`^${name}:\\s+(.*)$`, "m").exec(stdout)?.[1];
    expect(field("SigBlk")).toBe("0000000000000000");
    // 32 and 33 are glibc's own: its posix_spawn ignores them until the program's libc takes them over.
    const internal = 0x180000000n;
    expect(BigInt(`0x${field("SigIgn")}`) & ~internal).toBe(0n);
    expect(field("NSsid")).toBe(field("NSpid"));
    // The fourth is the directory that ls reads.
    expect((await run(["ls", "/proc/self/fd"], { timeoutMs: 5000 })).stdout).toBe("0\n1\n2\n3\n");
    expect((await run(["pwd"], { timeoutMs: 5000 })).stdout).toBe("/\n");
  } finally {
    closeSync(fd);
  }
});

test("a program in the PATH that may not be run is refused with its name", async () => {
  const error = await failure(run(["no-such-program-anywhere"], { timeoutMs: 5000 }));
  expect(error).toMatchObject({ code: "EXEC_SPAWN", argv0: "no-such-program-anywhere" });
  expect(error.message).toContain("ENOENT");
});

test("many at once: each gets its own input, output and status", async () => {
  const results = await Promise.all(
    Array.from({ length: 50 }, (_, i) =>
      run(["sh", "-c", `cat; exit ${i % 3}`], { stdin: `${i}`.repeat(i + 1), timeoutMs: 20_000 }).then(
        ({ stdout }) => ({ stdout, status: 0 }),
        (error: ExecError) => ({ stdout: undefined, status: error.exitCode }),
      ),
    ),
  );
  expect(results).toEqual(
    Array.from({ length: 50 }, (_, i) =>
      i % 3 === 0 ? { stdout: `${i}`.repeat(i + 1), status: 0 } : { stdout: undefined, status: i % 3 },
    ),
  );
});

test("beside Node's own children: each side reaps its own and only those", async () => {
  const node = spawn("sh", ["-c", "sleep 0.2; exit 7"]);
  const ours = run(["sh", "-c", "sleep 0.1; exit 5"], { timeoutMs: 5000 });
  const [[status], error] = await Promise.all([once(node, "exit"), failure(ours)]);
  expect({ node: status, ours: error.exitCode }).toEqual({ node: 7, ours: 5 });
});
