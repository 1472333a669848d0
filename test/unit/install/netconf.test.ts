// SPDX-License-Identifier: Apache-2.0
// The verdicts of this table are libcni's (1.3.0), which was run on the same texts.
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { parseList, parseSingle, SPEC_VERSIONS } from "../../../install/netconf.ts";
import { pluginBinary } from "../../support/cni-plugin.ts";

const deep = (levels: number) => `${"[".repeat(levels)}${"]".repeat(levels)}`;
const list = (plugins: string, more = "") => `{"name":"n","cniVersion":"1.0.0","plugins":${plugins}${more}}`;

describe("a list", () => {
  it.each([
    list('[{"type":"a"},{"type":"b"}]'),
    `\t\r\n ${list('[{"type":"a"}]')} \n`,
    list('[{"type":"a\u00ff"}]'),
    list('[{"Type":"a"}]'),
    list('[{"type":"a","TYPE":"b"}]'),
    list('[{"type":null,"Type":"a"}]'),
    list('[{"type":"a","ipam":{"type":"x"},"dns":{"nameservers":["1.1.1.1"]},"capabilities":{"portMappings":true}}]'),
    list('[{"type":"a","ipam":null,"dns":null,"capabilities":null,"name":null}]'),
    list('[{"type":"a","constructor":1,"__proto__":1,"":1}]'),
    list('[{"type":"a"}]', ',"disableCheck":"TRUE","loadOnlyInlinedPlugins":true'),
    list('[{"type":"a"}]', ',"cniVersions":["0.4.0","1","1.0"]'),
    list('[{"type":"a"}]', ',"name":"later"'),
    `{"name":"","plugins":[{"type":"a"}],"x":${deep(9999)}}`,
    '{"name":"no version","plugins":[{"type":"a"}]}',
  ])("%.80s is one", (text) => {
    expect(parseList(text).types.length).toBeGreaterThan(0);
  });

  it.each([
    ["", "it is not JSON"],
    ["{", "it is not JSON"],
    ["{}{}", "it is not JSON"],
    ["\u00ef\u00bb\u00bf{}", "byte order mark"],
    ["[]", "the document"],
    ["null", "the document"],
    ["{}", "name"],
    ['{"name":1,"plugins":[{"type":"a"}]}', "name"],
    ['{"Name":"n","plugins":[{"type":"a"}]}', "name"],
    ['{"name":"n","cniVersion":null,"plugins":[{"type":"a"}]}', "cniVersion"],
    [list("{}"), "plugins"],
    [list("null"), "plugins"],
    [list("[]"), "plugins: must not be empty"],
    [list("[1]"), "plugins.0: must be an object"],
    [list("[[]]"), "plugins.0: must be an object"],
    [list("[null]"), "plugins.0 names no plugin type"],
    [list('[{"type":"a"},{}]'), "plugins.1 names no plugin type"],
    [list('[{"type":""}]'), "plugins.0 names no plugin type"],
    [list('[{"type":["a"]}]'), "plugins.0.type"],
    [list('[{"type":"a","Type":1}]'), "plugins.0.Type"],
    [list('[{"type":"a","ipam":5}]'), "plugins.0.ipam"],
    [list('[{"type":"a","ipam":[]}]'), "plugins.0.ipam"],
    [list('[{"type":"a","dns":{"search":"x"}}]'), "plugins.0.dns.search"],
    [list('[{"type":"a","capabilities":{"x":1}}]'), "plugins.0.capabilities.x"],
    [list('[{"type":"a","x":1e999}]'), "too large"],
    [list('[{"type":"a"}]', ',"disableCheck":1'), "disableCheck"],
    [list('[{"type":"a"}]', ',"disableGC":"no"'), "disableGC"],
    [list('[{"type":"a"}]', ',"cniVersions":["1.0.0.0"]'), "cniVersions"],
    [list('[{"type":"a"}]', ',"cniVersions":"1.0.0"'), "cniVersions"],
    ['{"name":"n","loadOnlyInlinedPlugins":true}', "plugins is missing"],
    [`{"name":"n","plugins":[{"type":"a"}],"x":${deep(10_000)}}`, "deeper"],
    [`{"name":"n","plugins":[{"type":"a"}],"x":${deep(500_000)}}`, "deeper"],
  ])("%.80s is none: %s", (text, expected) => {
    expect(() => parseList(text)).toThrowError(
      expect.objectContaining({ code: "CNI_CONF_INVALID", message: expect.stringContaining(expected) }),
    );
  });

  it.each([
    ['{"name":"n","plugins":[{"type":"a"}]}', "cniVersion"],
    ['{"name":"n","cniVersion":"0.2.0","plugins":[{"type":"a"}]}', '"0.2.0"'],
    ['{"name":"n","cniVersion":"2.0.0","plugins":[{"type":"a"}]}', '"2.0.0"'],
    ['{"name":"n","cniVersion":"1.0.0"}', "directory of their own"],
  ])("%s is one, but none to chain into: %s", (text, expected) => {
    expect(parseList(text).unsupported).toContain(expected);
  });

  it.each([list('[{"type":"a"}]'), '{"name":"n","cniVersions":["2.0.0","1.1.0"],"plugins":[{"type":"a"}]}'])(
    "%s is one to chain into",
    (text) => {
      expect(parseList(text).unsupported).toBeUndefined();
    },
  );
});

describe("a single plugin", () => {
  it.each([
    ['{"type":"a","name":"n","cniVersion":"1.0.0"}', { name: "n", cniVersion: "1.0.0", types: ["a"] }],
    ['{"Type":"a","NAME":"n","cniversion":"1.0.0"}', { name: "n", cniVersion: "1.0.0", types: ["a"] }],
    ['{"name":"n","Name":"m","type":"a"}', { name: "m", cniVersion: "", types: ["a"] }],
    ['{"type":"a","plugins":[{"type":"b"}]}', { name: "", cniVersion: "", types: ["a"] }],
  ])("%s", (text, expected) => {
    expect(parseSingle(text)).toMatchObject({ kind: "single", ...expected, unsupported: undefined });
  });

  it.each([
    ['{"name":"n"}', "names no plugin type"],
    [list('[{"type":"a"}]'), "names no plugin type"],
    ['{"type":"a","type":""}', "names no plugin type"],
    ['{"type":["a"],"type":"a"}', "type"],
    ["[]", "must be an object"],
    ["null", "the document"],
    ['"a"', "the document"],
  ])("%s is none: %s", (text, expected) => {
    expect(() => parseSingle(text)).toThrowError(
      expect.objectContaining({ code: "CNI_CONF_INVALID", message: expect.stringContaining(expected) }),
    );
  });

  it("of a version that our plugin does not speak is none to chain into", () => {
    expect(parseSingle('{"type":"a","cniVersion":"9.0.0"}').unsupported).toContain('"9.0.0"');
  });
});

it("the versions are those that the plugin itself names", () => {
  const answer = execFileSync(pluginBinary(), { env: { CNI_COMMAND: "VERSION" }, encoding: "utf8" });
  expect(JSON.parse(answer).supportedVersions).toEqual(SPEC_VERSIONS);
});
