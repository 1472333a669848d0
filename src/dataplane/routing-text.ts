// SPDX-License-Identifier: Apache-2.0
// Rules and routes as `ip` would be told to add them. Pure.
import type { RouteSpec, RuleSpec } from "../native/binding.ts";

/** rtnetlink's number of the table that `ip` calls local. */
const LOCAL_TABLE = 255;

export function ruleText({ family, priority, table, fwmark, fwmask }: RuleSpec): string {
  const mark = fwmark === undefined ? "" : ` fwmark ${hex(fwmark)}/${hex(fwmask ?? 0xffffffff)}`;
  return `ip -${family} rule add priority ${priority}${mark} lookup ${table}`;
}

/** `device`: name of its outgoing interface. */
export function routeText({ family, table, type, dst, prefix, scope, src }: RouteSpec, device: string): string {
  const target = prefix === 0 ? "default" : `${dst}/${prefix}`;
  const rest = [scope === undefined ? "" : ` scope ${scope}`, src === undefined ? "" : ` src ${src}`].join("");
  const name = table === LOCAL_TABLE ? "local" : String(table);
  return `ip -${family} route replace ${type ?? "unicast"} ${target} dev ${device}${rest} table ${name}`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
