// SPDX-License-Identifier: Apache-2.0
// A CNI that writes its file in the very moment between our look and our change: what it wrote is what stays.
import fs, { renameSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { moveAway, removeFile, replaceFile } from "../../../install/exchange.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { native } from "../../../src/native/load.ts";
import { CniNode, fixture } from "../../support/cni-node.ts";

const CALICO = fixture("10-calico.conflist").toString("latin1");
const MERGED = fixture("10-calico.merged.conflist").toString("latin1");
const MULTUS = fixture("00-multus.conf");
const newer = (level: string) => CALICO.replace("info", level);
const merged = (level: string) => MERGED.replace("info", level);

let node: CniNode;
beforeEach(() => {
  node = new CniNode();
  node.write("10-calico.conflist", CALICO);
});
const { fileExchange, fileMove } = native();
afterEach(() => {
  node[Symbol.dispose]();
  Object.assign(native(), { fileExchange, fileMove });
});

/** What others do right before our 1st, 2nd, ... exchange, as if between two of our system calls. */
function beforeExchanges(...deeds: readonly (() => void)[]): void {
  const left = [...deeds];
  native().fileExchange = (one, other) => {
    left.shift()?.();
    fileExchange(one, other);
  };
}

const inPlace = (text: string) => () => node.write("10-calico.conflist", text);
const byRename = (text: string) => () => {
  node.write(".new", text);
  renameSync(node.conf(".new"), node.conf("10-calico.conflist"));
};

describe.each([
  ["in its place", inPlace],
  ["by a rename", byRename],
])("written %s between the look and the exchange", (_how, written) => {
  it("it goes back, and our entry goes into it the next time", async () => {
    beforeExchanges(written(newer("debug")));
    await expect(node.installer().install()).rejects.toMatchObject({ code: "FILE_CHANGED" });
    expect(node.names()).toEqual(["10-calico.conflist"]);
    expect(node.read("10-calico.conflist")).toBe(newer("debug"));
    await node.installer().install();
    expect(node.read("10-calico.conflist")).toBe(merged("debug"));
  });

  it("and once more before it is put back: the newest stays", async () => {
    beforeExchanges(written(newer("debug")), written(newer("error")), written(newer("warn")));
    await expect(node.installer().install()).rejects.toMatchObject({ code: "FILE_CHANGED" });
    expect(node.names()).toEqual(["10-calico.conflist"]);
    expect(node.read("10-calico.conflist")).toBe(newer("warn"));
  });

  it("while it is given back", async () => {
    await node.installer().install();
    beforeExchanges(written(newer("debug")));
    await node.installer().restore();
    expect(node.read("10-calico.conflist")).toBe(newer("debug"));
    expect(node.names()).toEqual(["10-calico.conflist"]);
  });
});

it("removed in between, or before it is put back: it stays removed", async () => {
  const removed = () => unlinkSync(node.conf("10-calico.conflist"));
  beforeExchanges(removed);
  await expect(node.installer().install()).rejects.toMatchObject({ code: "FILE_CHANGED" });
  expect(node.names()).toEqual([]);
  node.write("10-calico.conflist", CALICO);
  beforeExchanges(inPlace(newer("debug")), removed);
  await expect(node.installer().install()).rejects.toMatchObject({ code: "FILE_CHANGED" });
  expect(node.names()).toEqual([]);
});

it("a file that appears where we put ours is not replaced", () => {
  native().fileMove = (from, to) => {
    writeFileSync(to, "theirs");
    fileMove(from, to);
  };
  node.write("ours", "ours");
  const [ours, theirs] = [node.conf("ours"), node.conf("theirs")];
  expect(() => replaceFile(ours, theirs, undefined)).toThrow("theirs was changed");
  expect(() => moveAway(ours, node.conf("other"), Buffer.from("ours"), false)).toThrow("other was changed");
  expect([node.read("ours"), node.read("theirs"), node.read("other")]).toEqual(["ours", "theirs", "theirs"]);
});

it("a single plugin's that its CNI writes again as the original comes back: that one stays", async () => {
  node.write("00-multus.conf", MULTUS);
  await node.installer().install();
  native().fileMove = (from, to) => {
    if (to === node.conf("00-multus.conf")) writeFileSync(to, newer("debug"), { flag: "wx" });
    Object.assign(native(), { fileMove });
    fileMove(from, to);
  };
  await node.installer().restore();
  expect(node.names()).toEqual(["00-multus.conf", "10-calico.conflist"]);
  expect(node.read("00-multus.conf")).toBe(newer("debug"));
});

describe("a file system that can't exchange files", () => {
  beforeEach(() => {
    const unable = () => {
      throw new AgentError("EINVAL", "renameat2: Invalid argument");
    };
    Object.assign(native(), { fileExchange: unable, fileMove: unable });
  });

  it("is written by plain renames", async () => {
    const before = statSync(node.conf("10-calico.conflist")).ino;
    node.write("00-multus.conf", MULTUS);
    await node.installer({ cniConfName: "10-calico.conflist" }).install();
    expect(node.read("10-calico.conflist")).toBe(MERGED);
    expect(statSync(node.conf("10-calico.conflist")).ino).not.toBe(before);
    await node.installer({ istioOwnedConfig: true }).install();
    await node.installer().install();
    await node.installer().restore();
    expect(node.names()).toEqual(["00-multus.conf", "10-calico.conflist"]);
    expect(node.read("00-multus.conf")).toBe(MULTUS.toString("latin1"));
    expect(node.read("10-calico.conflist")).toBe(CALICO);
  });

  it("loses nothing that was changed before the last look", () => {
    node.write("ours", "ours");
    for (const was of [Buffer.from("older"), undefined]) {
      const replaced = () => replaceFile(node.conf("ours"), node.conf("10-calico.conflist"), was);
      expect(replaced).toThrow("was changed");
    }
    expect(() => removeFile(node.conf("ours"), Buffer.from("older"))).toThrow("was changed");
    expect(node.names()).toEqual(["10-calico.conflist", "ours"]);
  });
});

describe("written in the moment before a rename of ours", () => {
  const { renameSync: rename } = fs;
  const restored = () => {
    fs.renameSync = rename;
    syncBuiltinESMExports();
  };
  /** Before the first rename of a file of that name, and with `again` after it too. */
  function beforeRename(name: string, text: string, again?: string): void {
    fs.renameSync = (from, to) => {
      const due = from === node.conf(name);
      if (due) restored();
      if (due) node.write(name, text);
      rename(from, to);
      if (due && again !== undefined) node.write(name, again);
    };
    syncBuiltinESMExports();
  }
  afterEach(restored);

  it.each([
    ["a copy that is to go", undefined, "theirs"],
    ["and once more after it", "newest", "newest"],
  ])("%s: it comes back", async (_what, again, stays) => {
    await node.installer({ istioOwnedConfig: true }).install();
    beforeRename("02-istio-cni.conflist", "theirs", again);
    await expect(node.installer().install()).rejects.toMatchObject({ code: "FILE_CHANGED" });
    expect(node.names()).toEqual(["02-istio-cni.conflist", "10-calico.conflist"]);
    expect(node.read("02-istio-cni.conflist")).toBe(stays);
  });

  it("a single plugin's that is to be set aside: it comes back, and a list is made of it", async () => {
    node.write("00-multus.conf", MULTUS);
    beforeRename("00-multus.conf", '{"type":"bridge","name":"new"}');
    await expect(node.installer().install()).rejects.toMatchObject({ code: "FILE_CHANGED" });
    expect(node.names()).toEqual(["00-multus.conf", "00-multus.conflist", "10-calico.conflist"]);
    await node.installer().install();
    expect(JSON.parse(node.read("00-multus.conflist")).plugins[0].type).toBe("bridge");
    await node.installer().restore();
    expect(node.read("00-multus.conf")).toContain("bridge");
  });
});
