// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { asList, merge, unmerge } from "../../../install/conflist.ts";
import { parseList } from "../../../install/netconf.ts";

const FIXTURES = join(import.meta.dirname, "../../fixtures/conflist");
const fixture = (name: string) => readFileSync(join(FIXTURES, name), "latin1");
const ENTRY = JSON.parse(fixture("entry.json"));
const files = readdirSync(FIXTURES).sort();
const names = files.filter((name) => name.endsWith(".conflist") && !/\.(merged|removed)\.conflist$/.test(name));
const pristine = names.filter((name) => !fixture(name).includes('"cni_agent_run_dir"'));
const singles = files.filter((name) => /\.(conf|json)$/.test(name) && name !== "entry.json");
const pluginTypes = (text: string) => parseList(text).types;

describe("merge", () => {
  it.each(names)("%s becomes the golden file beside it", (name) => {
    expect(merge(fixture(name), ENTRY)).toBe(fixture(name.replace(".conflist", ".merged.conflist")));
  });

  it.each(names)("%s changes nothing the second time", (name) => {
    const merged = merge(fixture(name), ENTRY);
    expect(merge(merged, ENTRY)).toBe(merged);
    const reordered = Object.fromEntries(Object.entries(ENTRY).reverse());
    expect(merge(merged, reordered)).toBe(merged);
  });

  it.each(pristine)("%s only gains text, and unmerge takes exactly that away", (name) => {
    const before = fixture(name);
    const merged = merge(before, ENTRY);
    const added = merged.length - before.length;
    const at = [...merged].findIndex((char, index) => char !== before[index]);
    expect(merged.slice(0, at) + merged.slice(at + added)).toBe(before);
    expect(unmerge(merged)).toBe(before);
    expect(JSON.parse(merged).plugins).toEqual([...JSON.parse(before).plugins, ENTRY]);
  });

  it.each(names.filter((name) => !pristine.includes(name)))("%s had upstream's entry, which goes with ours", (name) => {
    const removed = fixture(name.replace(".conflist", ".removed.conflist"));
    expect(unmerge(fixture(name))).toBe(removed);
    expect(unmerge(merge(fixture(name), ENTRY))).toBe(removed);
  });

  it("replaces a stale entry where it stands and keeps what surrounds it", () => {
    const before = fixture("50-upstream.conflist");
    const merged = merge(before, ENTRY);
    expect(pluginTypes(merged)).toEqual(["calico", "istio-cni", "after-us"]);
    expect(JSON.parse(merged).plugins[1]).toEqual(ENTRY);
    expect(merge(merged, { type: "istio-cni", agent_away: "strict" })).toContain('"agent_away": "strict"');
    expect(pluginTypes(unmerge(merged) ?? "")).toEqual(["calico", "after-us"]);
  });

  it("leaves one entry where there were several", () => {
    const text =
      '{"name":"n","plugins":[{"type":"istio-cni"},{"type":"a"},{"TYPE":"istio-cni","x":1},{"type":"istio-cni"}]}';
    expect(JSON.parse(merge(text, ENTRY)).plugins).toEqual([ENTRY, { type: "a" }]);
    expect(unmerge(text)).toBe('{"name":"n","plugins":[{"type":"a"}]}');
  });

  it("edits the list that counts when a key is written twice", () => {
    const text = '{"plugins":[{"type":"a"}],"name":"n","plugins":[{"type":"b"}]}';
    expect(JSON.parse(merge(text, ENTRY)).plugins).toEqual([{ type: "b" }, ENTRY]);
    expect(unmerge(merge(text, ENTRY))).toBe(text);
  });

  it("does not take a plugin inside another plugin's configuration for ours", () => {
    expect(pluginTypes(fixture("40-odd.conflist"))).toEqual(["a", "b"]);
    expect(unmerge(fixture("40-odd.conflist"))).toBe(fixture("40-odd.conflist"));
  });
});

describe("unmerge", () => {
  it("says when nothing would be left", () => {
    expect(unmerge('{"name":"n","plugins":[{"type":"istio-cni"},{"type":"istio-cni"}]}')).toBeUndefined();
  });
});

describe("asList", () => {
  it.each(singles)("%s becomes the golden list beside it", (name) => {
    const entry = { ...ENTRY, converted_from: name };
    expect(merge(asList(fixture(name)), entry)).toBe(fixture(`${name}.merged.conflist`));
    expect(unmerge(merge(asList(fixture(name)), ENTRY))).toBe(asList(fixture(name)));
  });

  it.each(singles)("%s is in its list byte for byte", (name) => {
    expect(asList(fixture(name))).toContain(fixture(name).trim());
  });

  it.each([
    ['{"type":"a"}', "0.3.1"],
    ['{"type":"a","cniVersion":""}', "0.3.1"],
    ['{"type":"a","cniVersion":"0.1.0"}', "0.3.1"],
    ['{"type":"a","cniVersion":"0.2.0"}', "0.3.1"],
    ['{"type":"a","cniversion":"0.4.0"}', "0.4.0"],
    ['{"type":"a","cniVersion":"1.1.0"}', "1.1.0"],
  ])("%s becomes a list of version %s", (text, expected) => {
    expect(JSON.parse(asList(text))).toEqual({ cniVersion: expected, name: "", plugins: [JSON.parse(text)] });
  });
});

it("an entry outside ASCII is right in a text of any encoding", () => {
  const entry = { type: "istio-cni", cni_agent_run_dir: "/caf\u00e9/\u{1f433}" };
  const merged = merge(fixture("45-no-utf8.conflist"), entry);
  expect(JSON.parse(merged).plugins[1]).toEqual(entry);
  expect(merge(merged, entry)).toBe(merged);
  expect(unmerge(merged)).toBe(fixture("45-no-utf8.conflist"));
});

it("strings of a megabyte are no trouble", () => {
  const long = JSON.stringify('\\"'.repeat(200_000));
  const text = `{"name":"n","x":${long},"plugins":[{"type":"a","x":${long}}]}`;
  expect(unmerge(merge(text, ENTRY))).toBe(text);
});

describe("any layout", () => {
  /** mulberry32: the same layouts in every run. */
  function random(seed: number): () => number {
    let state = seed;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  function layout(next: () => number): string {
    const pick = <T>(items: readonly T[]): T => items[Math.floor(next() * items.length)] as T;
    const space = () => pick(["", "", " ", "\n", "\r\n", "\n\t", "  \n    ", "\t"]);
    const words = ["a", "", "]", "}", '"', "\\", "\u0007", ",", ":", "\u00fc", "plugins", "type"];
    const text = () => JSON.stringify(pick(words) + pick(words) + pick(words));
    const value = (depth: number): string => {
      const kind = depth > 3 ? 3 + next() * 3 : next() * 6;
      if (kind < 1.5) return list("{", "}", () => `${text()}${space()}:${space()}${value(depth + 1)}`);
      if (kind < 3) return list("[", "]", () => value(depth + 1));
      return pick(["null", "true", "-1.5e+3", "0", text(), text()]);
    };
    const list = (open: string, close: string, item: () => string, least = 0) => {
      const items = Array.from({ length: least + Math.floor(next() * 3) }, item);
      return `${open}${space()}${items.join(`${space()},${space()}`)}${space()}${close}`;
    };
    const plugin = () => `{${space()}"type":${space()}"p"${space()},${space()}"x":${value(0)}${space()}}`;
    const plugins = `"plugins"${space()}:${space()}${list("[", "]", plugin, 1)}`;
    return `${space()}{"name":"n","before":${value(0)},${plugins}${space()},"after":${value(0)}${space()}}${space()}`;
  }

  it("survives 2000 random ones", () => {
    const next = random(20260819);
    for (let round = 0; round < 2000; round++) {
      const before = layout(next);
      const merged = merge(before, ENTRY);
      const parsed = JSON.parse(before);
      expect(JSON.parse(merged)).toEqual({ ...parsed, plugins: [...parsed.plugins, ENTRY] });
      expect(unmerge(merged)).toBe(before);
    }
  });
});
