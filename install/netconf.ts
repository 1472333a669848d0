// SPDX-License-Identifier: Apache-2.0
// Which texts are CNI configurations, by the rules of libcni (libcni/conf.go, pkg/types) in containerd and CRI-O.
import * as v from "valibot";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import { invalidConf, parseGoJson } from "./go-json.ts";
import { JsonSpans } from "./json-spans.ts";

export type PluginEntry = Readonly<Record<string, unknown>>;

/** A configuration that runtimes accept. */
export interface NetConf {
  /** A `.conflist`, or one plugin as `.conf` and `.json` hold it, which libcni turns into a list of one. */
  readonly kind: "list" | "single";
  readonly name: string;
  readonly cniVersion: string;
  /** Those in the text. libcni 1.3 adds what it finds in a directory named like the network. */
  readonly plugins: readonly PluginEntry[];
  readonly types: readonly string[];
  /** Why no plugin can be chained into it, although runtimes accept it. */
  readonly unsupported: string | undefined;
}

/** Versions of the CNI specification that our plugin speaks. */
export const SPEC_VERSIONS: readonly string[] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/** valibot takes arrays for objects, Go does not. */
const notArray = v.pipe(
  v.unknown(),
  v.check((value) => !Array.isArray(value), "must be an object"),
);
const object = <T extends v.ObjectEntries>(entries: T) => v.pipe(notArray, v.looseObject(entries, "must be an object"));
const record = <T extends v.GenericSchema>(values: T) => v.pipe(notArray, v.record(v.string(), values));
const text = v.nullish(v.string());
const texts = v.nullish(v.array(v.nullable(v.string())));
/** Fields of libcni's PluginConf by folded name. Go's null leaves a field as it is. */
const FIELDS: ReadonlyMap<string, v.GenericSchema> = new Map(
  Object.entries({
    cniversion: text,
    name: text,
    type: text,
    capabilities: v.nullish(record(v.nullable(v.boolean()))),
    ipam: v.nullish(object({ type: text })),
    dns: v.nullish(object({ nameservers: texts, domain: text, search: texts, options: texts })),
    prevresult: v.nullish(record(v.unknown())),
    "cni.dev/valid-attachments": v.nullish(v.array(v.nullable(object({ containerID: text, ifname: text })))),
  }),
);

const flag = v.optional(v.union([v.boolean(), v.pipe(v.string(), v.regex(/^(?:true|false)$/i))]));
/** Go's strconv.Atoi, one to three times; empty is 0.1.0. */
const version = v.pipe(v.string(), v.regex(/^(?:[+-]?\d+(?:\.[+-]?\d+){0,2})?$/, "is no version"));
const LIST = object({
  name: v.string(),
  cniVersion: v.optional(v.string()),
  cniVersions: v.optional(v.array(version)),
  disableCheck: flag,
  disableGC: flag,
  loadOnlyInlinedPlugins: flag,
  plugins: v.optional(v.pipe(v.array(v.nullable(object({}))), v.nonEmpty("must not be empty"))),
});

/** A `.conflist`. @throws AgentError CNI_CONF_INVALID when libcni refuses it too */
export function parseList(json: string): NetConf {
  const list = check(LIST, parseGoJson(json), "the document");
  if (list.cniVersions !== undefined && list.cniVersion !== undefined) check(version, list.cniVersion, "cniVersion");
  const inlineOnly = list.loadOnlyInlinedPlugins === true || /^true$/i.test(String(list.loadOnlyInlinedPlugins));
  if (list.plugins === undefined && inlineOnly) throw invalidConf("plugins is missing");
  const plugins = (list.plugins ?? []).map((plugin, index) => {
    const entry = plugin ?? {};
    return { entry, type: pluginConf(sorted(entry), `plugins.${index}`).type };
  });
  return {
    kind: "list",
    name: list.name,
    cniVersion: list.cniVersion ?? "",
    plugins: plugins.map(({ entry }) => entry),
    types: plugins.map(({ type }) => type),
    unsupported: unsupportedList(list.cniVersion ?? "", list.cniVersions, plugins.length),
  };
}

function unsupportedList(cniVersion: string, cniVersions: readonly string[] | undefined, plugins: number) {
  if (plugins === 0) return "its plugins are in a directory of their own, into which none can be chained as the last";
  return unsupportedVersion([...(cniVersions ?? []), cniVersion]);
}

/** Of several versions a runtime takes the highest that it knows. */
function unsupportedVersion(versions: readonly string[]): string | undefined {
  if (versions.some((each) => SPEC_VERSIONS.includes(each))) return undefined;
  return `${PLUGIN_NAME} does not speak its cniVersion ${JSON.stringify(versions.join(", "))}`;
}

/** A `.conf` or `.json`. @throws AgentError CNI_CONF_INVALID when libcni refuses it too */
export function parseSingle(json: string): NetConf {
  const plugin = check(object({}), parseGoJson(json), "the document");
  // Straight from the text, where each of several equal keys counts; the plugin itself comes from a map.
  const spans = new JsonSpans(json);
  const { members } = spans.object(spans.root());
  const written = members.map(({ key, value }) => [key, JSON.parse(json.slice(value.start, value.end))] as const);
  const { name, cniVersion } = pluginConf(written, "the document");
  const { type } = pluginConf(sorted(plugin), "the document");
  const unsupported = unsupportedVersion([chainVersion(cniVersion)]);
  return { kind: "single", name, cniVersion, plugins: [plugin], types: [type], unsupported };
}

/**
 * The version of a list made from a single plugin of version `single`: before 0.3.0 there were no lists,
 * and istio-cni too makes that 0.3.1.
 */
export function chainVersion(single: string): string {
  return ["", "0.1.0", "0.2.0"].includes(single) ? "0.3.1" : single;
}

/** As read back from a map, which sorts its keys. */
function sorted(plugin: PluginEntry): [string, unknown][] {
  return Object.entries(plugin).sort(([a], [b]) => (a < b ? -1 : 1));
}

interface PluginConf {
  readonly name: string;
  readonly cniVersion: string;
  readonly type: string;
}

/**
 * What Go's decoder makes of a plugin's members, read in this order: case does not matter, later ones win.
 * @throws AgentError CNI_CONF_INVALID
 */
function pluginConf(members: readonly (readonly [string, unknown])[], where: string): PluginConf {
  const fields = new Map<string, string>();
  for (const [key, value] of members) {
    const field = key.toLowerCase();
    const schema = FIELDS.get(field);
    if (schema === undefined || value === null) continue;
    check(schema, value, where === "the document" ? key : `${where}.${key}`);
    fields.set(field, String(value));
  }
  const type = fields.get("type") ?? "";
  if (type === "") throw invalidConf(`${where} names no plugin type`);
  return { name: fields.get("name") ?? "", cniVersion: fields.get("cniversion") ?? "", type };
}

function check<T extends v.GenericSchema>(schema: T, value: unknown, where: string): v.InferOutput<T> {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  const place = path === null ? where : where === "the document" ? path : `${where}.${path}`;
  throw invalidConf(`${place}: ${issue.message}`);
}
