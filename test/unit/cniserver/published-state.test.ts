// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { STATE_MAX_BYTES, stateText, stateWrittenAt, writeState } from "../../../src/cniserver/published-state.ts";
import { FileFaults } from "../../support/faulty-files.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

describe("the published state", () => {
  it("lists namespaces once and in order", () => {
    expect(stateText("boot", ["b", "a", "b"])).toBe('{"schema":1,"bootId":"boot","clear":["a","b"]}\n');
  });

  it("never outgrows what the plugin reads", () => {
    const names = Array.from({ length: 80_000 }, (_, i) => `n${i}`.padEnd(63, "x"));
    const text = stateText("boot", names);
    expect(text.length).toBeLessThanOrEqual(STATE_MAX_BYTES);
    expect(text.length).toBeGreaterThan(STATE_MAX_BYTES - 100);
    expect(JSON.parse(text).clear).toHaveLength(Math.floor((STATE_MAX_BYTES - 40) / 66));
  });

  it("is written so that only its owner can change it, whatever the umask", async () => {
    using dir = new ScratchDir();
    const before = process.umask(0);
    try {
      await writeState(dir.path, "boot", ["a"]);
    } finally {
      process.umask(before);
    }
    const path = dir.file("ambient-cni-state.json");
    expect(statSync(path).mode & 0o777).toBe(0o644);
    expect(readFileSync(path, "utf8")).toBe(stateText("boot", ["a"]));
  });

  it.each(["refused", "torn", "killed"] as const)(
    "after a write that was %s at any call lets pass nobody that it doesn't name",
    async (fault) => {
      for (let calls = 0; ; calls++) {
        using dir = new ScratchDir("/dev/shm");
        const path = dir.file("ambient-cni-state.json");
        await writeState(dir.path, "boot", ["a", "joins"]);
        const [older, newer] = [stateText("boot", ["a", "joins"]), stateText("boot", ["a"])];
        const there = () => (existsSync(path) ? readFileSync(path, "utf8") : undefined);
        const faults = new FileFaults(dir.path, () => expect([older, newer, undefined]).toContain(there()));
        const { unmade, error } = await faults.during(fault, calls, () => writeState(dir.path, "boot", ["a"]));
        // Who is killed says nothing any more; the next one does.
        if (fault !== "killed") expect([newer, undefined]).toContain(there());
        if (error === undefined) expect(there()).toBe(newer);
        await writeState(dir.path, "boot", ["a"]);
        expect(readdirSync(dir.path)).toEqual(["ambient-cni-state.json"]);
        expect(there()).toBe(newer);
        if (unmade === undefined) return;
      }
    },
  );

  it("tells when an agent last wrote it since boot", async () => {
    using dir = new ScratchDir();
    expect(await stateWrittenAt(dir.path, "boot")).toBeUndefined();
    await writeState(dir.path, "boot", []);
    utimesSync(dir.file("ambient-cni-state.json"), 1000, 1000);
    expect(await stateWrittenAt(dir.path, "boot")).toBe(1_000_000);
    expect(await stateWrittenAt(dir.path, "other boot")).toBeUndefined();
    for (const text of ["", "{", "[]", '{"schema":2,"bootId":"boot","clear":[]}']) {
      writeFileSync(dir.file("ambient-cni-state.json"), text);
      expect(await stateWrittenAt(dir.path, "boot")).toBeUndefined();
    }
  });

  it("does not keep an agent from starting, whatever is in its place", async () => {
    using dir = new ScratchDir();
    mkdirSync(dir.file("ambient-cni-state.json"));
    expect(await stateWrittenAt(dir.path, "boot")).toBeUndefined();
    expect(await stateWrittenAt(dir.file("ambient-cni-state.json/no/directory"), "boot")).toBeUndefined();
  });
});
