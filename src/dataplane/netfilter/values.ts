// SPDX-License-Identifier: Apache-2.0
// The only gate through which a value of the outside reaches rule text.
import { AgentError, messageOf } from "../../core/errors.ts";
import { canonicalCidr, canonicalIp, type Family, familyOf } from "../../core/ip.ts";

/**
 * What Linux lets an interface be called, less what nft would read as syntax (`*` is a wildcard).
 * IFNAMSIZ is 16 with the final NUL.
 */
const INTERFACE_NAME = /^[A-Za-z0-9_.-]{1,15}$/;

/** @throws AgentError BAD_INTERFACE_NAME that names the value. */
export function interfaceName(name: string): string {
  if (!INTERFACE_NAME.test(name) || name === "." || name === "..") {
    throw new AgentError(
      "BAD_INTERFACE_NAME",
      `not an interface name: ${JSON.stringify(name)}`,
      "interface names are 1 to 15 characters out of A-Z a-z 0-9 _ . -",
    );
  }
  return name;
}

/** A canonical address of the given family. @throws AgentError BAD_ADDRESS that names the value. */
export function address(text: string, family: Family): string {
  const ip = accepted(() => canonicalIp(text));
  if (familyOf(ip) !== family) {
    throw new AgentError("BAD_ADDRESS", `not an IPv${family} address: ${JSON.stringify(text)}`);
  }
  return ip;
}

/** Those of the addresses that are of this family, canonical, sorted, each once. */
export function addresses(texts: readonly string[], family: Family): string[] {
  const all = texts.map((text) => accepted(() => canonicalIp(text)));
  return [...new Set(all.filter((ip) => familyOf(ip) === family))].sort();
}

/**
 * Those of the CIDRs that are of this family, sorted, without those that lie inside another one: nft
 * refuses overlapping intervals in one set. An IPv6 CIDR inside ::ffff:0:0/96 counts as IPv4.
 */
export function cidrs(texts: readonly string[], family: Family): string[] {
  const all = texts.map((text) => accepted(() => canonicalCidr(text))).filter((cidr) => familyOf(cidr) === family);
  const ranges = [...new Set(all)].map((cidr) => ({ cidr, ...range(cidr, family) }));
  ranges.sort((a, b) => (a.first === b.first ? (a.last > b.last ? -1 : 1) : a.first < b.first ? -1 : 1));
  const kept: string[] = [];
  let covered = -1n;
  for (const { cidr, last } of ranges) {
    if (last <= covered) continue;
    kept.push(cidr);
    covered = last;
  }
  return kept;
}

function range(cidr: string, family: Family): { first: bigint; last: bigint } {
  const [ip = "", prefix = ""] = cidr.split("/");
  const bits = family === 4 ? 32n : 128n;
  const first = toBigInt(ip, family);
  return { first, last: first + (1n << (bits - BigInt(prefix))) - 1n };
}

function toBigInt(ip: string, family: Family): bigint {
  if (family === 4) return ip.split(".").reduce((sum, part) => (sum << 8n) + BigInt(part), 0n);
  const [head = "", tail] = ip.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => "0");
  return [...left, ...zeros, ...right].reduce((sum, part) => (sum << 16n) + BigInt(`0x${part}`), 0n);
}

function accepted<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new AgentError("BAD_ADDRESS", messageOf(error), undefined, { cause: error });
  }
}
