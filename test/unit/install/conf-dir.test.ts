// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readConfDir } from "../../../install/conf-dir.ts";
import { CniNode, fixture } from "../../support/cni-node.ts";

let node: CniNode;
beforeEach(() => {
  node = new CniNode();
});
afterEach(() => node[Symbol.dispose]());

const valid = async () => (await readConfDir(node.netDir)).files.map(({ name }) => name);
const SINGLE = '{"type":"bridge","name":"n"}';
const LIST = fixture("20-one-line.conflist");

describe("the order", () => {
  it("is that of the names' bytes over all three extensions", async () => {
    const names = [
      "\u{1f433}.conf",
      "\ue000.conf",
      "B.conf",
      "a.json",
      "a.conflist",
      "a.conf",
      "10.conf",
      "9.conf",
      ".conf",
    ];
    for (const name of names) node.write(name, name.endsWith("list") ? LIST : SINGLE);
    expect(await valid()).toEqual([
      ".conf",
      "10.conf",
      "9.conf",
      "B.conf",
      "a.conf",
      "a.conflist",
      "a.json",
      // UTF-16, JavaScript's own order, has these two the other way round.
      "\ue000.conf",
      "\u{1f433}.conf",
    ]);
  });

  it("leaves out what runtimes don't look at", async () => {
    for (const name of ["a.conf.bak", "a.CONF", "a.conflist~", "conf", "a.yaml", "a.conf.ambient-cni-original"]) {
      node.write(name, SINGLE);
    }
    const dir = await readConfDir(node.netDir);
    expect([dir.files, dir.passedOver]).toEqual([[], []]);
    expect(dir.names.size).toBe(6);
  });
});

it("a list in a .conf is none, nor is a single plugin in a .conflist", async () => {
  node.write("1.conf", LIST);
  node.write("2.conflist", SINGLE);
  node.write("3.json", LIST);
  node.write("4.json", SINGLE);
  expect(await valid()).toEqual(["4.json"]);
});

it("a list without plugins is one where they lie in a directory of the network's name", async () => {
  node.write("1.conflist", '{"name":"split","cniVersion":"1.0.0"}');
  expect(await valid()).toEqual([]);
  mkdirSync(node.conf("split"));
  expect(await valid()).toEqual([]);
  writeFileSync(node.conf("split/10-bridge.conf"), SINGLE);
  expect((await readConfDir(node.netDir)).files).toMatchObject([
    { name: "1.conflist", conf: { unsupported: expect.stringContaining("directory") } },
  ]);
});

it("hostile files are passed over, each for its reason, and nothing waits for them", async () => {
  execFileSync("mkfifo", [node.conf("01-fifo.conf")]);
  mkdirSync(node.conf("02-directory.conflist"));
  node.write("03-large.conflist", "{}");
  truncateSync(node.conf("03-large.conflist"), 100 << 20);
  symlinkSync("04-loop.conf", node.conf("04-loop.conf"));
  symlinkSync("nowhere", node.conf("05-dangling.json"));
  symlinkSync("/dev/zero", node.conf("06-zero.conflist"));
  node.write(
    "07-deep.conflist",
    `{"name":"n","plugins":[{"type":"a","x":${"[".repeat(900_000)}${"]".repeat(900_000)}}]}`,
  );
  node.write("08-bom.conflist", Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), LIST]));
  node.write("09-utf16.conflist", Buffer.from(LIST.toString(), "utf16le"));
  node.write("10-empty.conflist", "");
  node.write("11-cut.conflist", LIST.subarray(0, -3));
  const socket = createServer();
  await new Promise<void>((resolve) => socket.listen(node.conf("12-socket.conf"), resolve));
  // Valid all the same: equal keys, and bytes that are no UTF-8.
  node.write("20-twice.conflist", '{"name":1,"plugins":[],"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"}]}');
  node.write("21-no-utf8.conflist", fixture("45-no-utf8.conflist"));
  try {
    const dir = await readConfDir(node.netDir);
    expect(dir.files.map(({ name }) => name)).toEqual(["20-twice.conflist", "21-no-utf8.conflist"]);
    expect(dir.passedOver.map(({ name, reason }) => [name.slice(0, 2), reason])).toEqual([
      ["01", expect.stringContaining("no regular file")],
      ["02", expect.stringContaining("no regular file")],
      ["03", expect.stringContaining("larger than")],
      ["04", expect.stringContaining("ELOOP")],
      ["05", "a link to nowhere, which is not here"],
      ["06", expect.stringContaining("no regular file")],
      ["07", expect.stringContaining("deeper than 10000")],
      ["08", expect.stringContaining("byte order mark")],
      ["09", expect.stringContaining("not JSON")],
      ["10", expect.stringContaining("not JSON")],
      ["11", expect.stringContaining("not JSON")],
      ["12", expect.stringMatching(/ENXIO|no regular file/)],
    ]);
  } finally {
    await new Promise((resolve) => socket.close(resolve));
  }
});

it("a directory of too many files is looked at up to a bound", async () => {
  for (let i = 0; i < 300; i++) node.write(`${String(i).padStart(4, "0")}.conf`, SINGLE);
  const dir = await readConfDir(node.netDir);
  expect([dir.files.length, dir.passedOver.length]).toEqual([256, 44]);
});

it("no directory, and a file in its place, are said so", async () => {
  rmSync(node.netDir, { recursive: true });
  await expect(readConfDir(node.netDir)).rejects.toMatchObject({
    code: "CNI_CONF_NOT_FOUND",
    message: expect.stringContaining(node.netDir),
    remedy: expect.stringContaining("cniConfDir"),
  });
  writeFileSync(node.netDir, "");
  await expect(readConfDir(node.netDir)).rejects.toMatchObject({
    code: "BAD_PATH",
    remedy: expect.stringMatching(/\w/),
  });
});
