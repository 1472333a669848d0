// SPDX-License-Identifier: Apache-2.0
import { execFileSync, spawn } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import type { LogLevel } from "../../../src/core/config/config.ts";
import { Log } from "../../../src/telemetry/log.ts";
import { openTargets } from "../../../src/telemetry/log-sink.ts";
import { RecentLines } from "../../../src/telemetry/recent-lines.ts";

function logTo(lines: string[], json: boolean, levels: Record<string, LogLevel> = { default: "info" }): Log {
  return new Log(
    { json, levels: new Map(Object.entries(levels)) },
    { write: (line) => lines.push(line), flush: () => undefined },
  );
}
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

describe("JSON", () => {
  test("upstream's keys, then the fields", () => {
    const lines: string[] = [];
    logTo(lines, true)
      .scope("cni-agent")
      .info("enrolled", { pod: "a/b", ms: 3, ips: ["10.0.0.1"], id: 5n, gone: undefined });
    expect(lines).toHaveLength(1);
    expect(lines[0]?.endsWith("\n")).toBe(true);
    expect(JSON.parse(lines[0] ?? "")).toEqual({
      level: "info",
      time: expect.stringMatching(RFC3339),
      scope: "cni-agent",
      pod: "a/b",
      ms: 3,
      ips: ["10.0.0.1"],
      id: 5,
      msg: "enrolled",
    });
  });

  test("fields cannot pass for the line's own keys; errors are their message", () => {
    const lines: string[] = [];
    const fields = { time: "x", level: "fatal", scope: "y", msg: "z", error: new Error("why") };
    logTo(lines, true).scope("s").warn("m", fields);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      level: "warn",
      scope: "s",
      msg: "m",
      time_: "x",
      level_: "fatal",
      scope_: "y",
      msg_: "z",
      error: "why",
    });
    expect(lines[0]?.match(/"msg"/g)).toHaveLength(1);
  });

  test("a huge value is cut", () => {
    const lines: string[] = [];
    logTo(lines, true)
      .scope("s")
      .info("x".repeat(100_000), { field: "y".repeat(100_000) });
    expect(lines[0]?.length).toBeLessThan(40_000);
    expect(lines[0]).toContain("(100000 characters)");
  });

  test("a circular field does not throw", () => {
    const lines: string[] = [];
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    logTo(lines, true).scope("s").info("m", { circular });
    logTo(lines, false).scope("s").info("m", { circular });
    expect(lines).toHaveLength(2);
  });
});

describe("text", () => {
  const line = (message: string, fields?: Record<string, unknown>) => {
    const lines: string[] = [];
    logTo(lines, false).scope("zds").error(message, fields);
    expect(lines).toHaveLength(1);
    return lines[0] ?? "";
  };

  test("time, level, scope, message and fields between tabs", () => {
    const [time, ...rest] = line("peer gone", { peer: 3, reason: "end of file", pod: "a/b" }).trimEnd().split("\t");
    expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    expect(rest).toEqual(["error", "zds", "peer gone", "peer=3", 'reason="end of file"', "pod=a/b"]);
  });

  test("no text can forge a line or a field", () => {
    const forged = line("a\n2026-01-01T00:00:00.000000Z\terror\tx\tforged", {
      "k\ty": 'v" x=y\n',
      z: "\u001b[2J\u2028",
    });
    expect(forged.split("\n")).toHaveLength(2);
    expect(forged).toContain("a\\n2026-01-01T00:00:00.000000Z\\terror");
    expect(forged).toContain('k\\ty="v\\" x=y\\n"');
    expect(forged).not.toContain("\u001b");
  });
});

describe("levels", () => {
  const written = (log: Log, lines: string[], scope: string) => {
    lines.length = 0;
    const logger = log.scope(scope);
    logger.debug("debug");
    logger.info("info");
    logger.warn("warn");
    logger.error("error");
    return lines.map((text) => JSON.parse(text).msg).join(" ");
  };

  test("per scope, with a default", () => {
    const lines: string[] = [];
    const log = logTo(lines, true, { default: "warn", zds: "debug", kube: "none", repair: "fatal" });
    expect(written(log, lines, "zds")).toBe("debug info warn error");
    expect(written(log, lines, "other")).toBe("warn error");
    expect(written(log, lines, "kube")).toBe("");
    expect(written(log, lines, "repair")).toBe("");
  });

  test("changed while running, for loggers that exist and for later ones", () => {
    const lines: string[] = [];
    const log = logTo(lines, true, { default: "info", zds: "error" });
    expect(written(log, lines, "a")).toBe("info warn error");
    log.setLevel("default", "debug");
    expect(written(log, lines, "a")).toBe("debug info warn error");
    expect(written(log, lines, "zds")).toBe("error");
    log.setLevel("b", "warn");
    expect(written(log, lines, "b")).toBe("warn error");
    log.setLevel("all", "error");
    for (const scope of ["a", "b", "zds", "new"]) expect(written(log, lines, scope)).toBe("error");
    expect(log.levels().map(({ scope }) => scope)).toEqual(["a", "b", "default", "new", "zds"]);
  });

  test("a child is the logger of another scope, the same one each time", () => {
    const log = logTo([], true);
    expect(log.scope("a").child("b")).toBe(log.scope("b"));
  });
});

describe("targets", () => {
  test("files get every line, and keep what they had", () => {
    const dir = mkdtempSync(join(tmpdir(), "ambient-log-"));
    try {
      const path = join(dir, "log");
      for (const word of ["one", "two"]) {
        const log = new Log({ json: true, levels: new Map() }, openTargets([path]));
        log.scope("s").info(word);
        log.flush();
      }
      expect(
        readFileSync(path, "utf8")
          .trim()
          .split("\n")
          .map((text) => JSON.parse(text).msg),
      ).toEqual(["one", "two"]);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  test.each([
    ["does not read: the process ends all the same", false],
    ["reads: it gets every line", true],
  ])("a pipe whose reader %s", async (_what, reads) => {
    const dir = mkdtempSync(join(tmpdir(), "ambient-log-"));
    const fifo = join(dir, "stdout");
    execFileSync("mkfifo", [fifo]);
    const pipe = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const stdout = openSync(fifo, constants.O_WRONLY);
    // A pipe holds 64 KiB.
    const lines = reads ? 60 : 400;
    const program = `
      import { openTargets } from ${JSON.stringify(join(import.meta.dirname, "../../../src/telemetry/log-sink.ts"))};
      const sink = openTargets(["stdout"]);
      for (let line = 0; line < ${lines}; line++) sink.write("x".repeat(999) + "\\n");
      setTimeout(() => {
        sink.flush();
        process.exit(0);
      }, 0);
    `;
    const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
      stdio: ["ignore", stdout, "inherit"],
    });
    closeSync(stdout);
    try {
      let read = 0;
      const reader = setInterval(() => {
        for (const chunk = Buffer.alloc(65_536); reads; ) {
          try {
            const bytes = readSync(pipe, chunk);
            if (bytes === 0) return;
            read += bytes;
          } catch {
            return;
          }
        }
      }, 5);
      const status = await new Promise((resolve) => child.once("exit", resolve));
      await vi.waitFor(() => expect(read).toBe(reads ? lines * 1000 : 0), { timeout: 5000 });
      clearInterval(reader);
      expect(status).toBe(0);
    } finally {
      child.kill("SIGKILL");
      closeSync(pipe);
      rmSync(dir, { recursive: true });
    }
  });

  test("a file that cannot be opened is named", () => {
    expect(() => openTargets(["/no/such/dir/log"])).toThrow("cannot write the log to /no/such/dir/log");
  });
});

test("the last lines are kept, and no more of them than a report may hold", () => {
  const written: string[] = [];
  const lines = new RecentLines({ write: (line) => void written.push(line), flush: () => undefined });
  for (let index = 0; index < 5000; index++) lines.write(`line ${index}\n`);
  expect(written).toHaveLength(5000);
  const kept = lines.lines();
  expect(kept.at(-1)).toBe("line 4999");
  expect(kept.length).toBeGreaterThanOrEqual(1800);
  expect(kept.length).toBeLessThanOrEqual(2000);
  expect(kept[0]).toBe(`line ${5000 - kept.length}`);
  for (let index = 0; index < 100; index++) lines.write("x".repeat(16_384));
  expect(lines.lines().join("").length).toBeLessThanOrEqual(512 * 1024);
  lines.write("x".repeat(1 << 20));
  expect(lines.lines()).toEqual([]);
});
