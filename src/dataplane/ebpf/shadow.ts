// SPDX-License-Identifier: Apache-2.0
// A pod's shadow address: its 16-bit words have the same one's-complement sum as the pod IP's (RFC 6296),
// so that exchanging one for the other changes neither the IPv4 header checksum nor any TCP checksum. Pure.
import ipaddr from "ipaddr.js";
import { SHADOW_RANGE } from "../../core/constants.ts";
import { type Family, familyOf } from "../../core/ip.ts";

/** 255.0.0.0/9 leaves 7 bits of the high half to choose from. */
const IPV4_CANDIDATES = 128;
const IPV6_CANDIDATES = 1024;
const MODULUS = 0xffff;

/** All shadows that an address may have, best first: two pods rarely want the same. */
export function* shadowsOf(ip: string): Generator<string> {
  const words = wordsOf(ip);
  const sum = words.reduce((all, word) => all + word, 0);
  if (familyOf(ip) === 4) {
    const [high = 0] = wordsOf(SHADOW_RANGE[4].split("/")[0] ?? "");
    const first = (words[1] ?? 0) % IPV4_CANDIDATES;
    for (let i = 0; i < IPV4_CANDIDATES; i++) {
      const chosen = high + ((first + i) % IPV4_CANDIDATES);
      yield textOf([chosen, balanced(sum - chosen)]);
    }
    return;
  }
  const prefix = wordsOf(SHADOW_RANGE[6].split("/")[0] ?? "").slice(0, 4);
  for (let i = 0; i < IPV6_CANDIDATES; i++) {
    // The last words tell pods of one node apart.
    const chosen = [...prefix, ((words[5] ?? 0) + i) & MODULUS, words[6] ?? 0, words[7] ?? 0];
    yield textOf([...chosen, balanced(sum - chosen.reduce((all, word) => all + word, 0))]);
  }
}

/** True when `shadow` lies in the range of shadows and has the sum of `ip`. */
export function isShadowOf(shadow: string, ip: string): boolean {
  if (shadow === "" || familyOf(shadow) !== familyOf(ip) || !isShadow(shadow)) return false;
  const sum = (address: string) => wordsOf(address).reduce((all, word) => all + word, 0) % MODULUS;
  return sum(shadow) === sum(ip);
}

/** True for an address of the range of shadows. */
export function isShadow(address: string): boolean {
  const [network = "", prefix = ""] = SHADOW_RANGE[familyOf(address)].split("/");
  return ipaddr.parse(address).match(ipaddr.parse(network), Number(prefix));
}

/** The first shadow of `ip` that is not taken, or undefined when all are. */
export function freeShadow(ip: string, taken: (shadow: string) => boolean): string | undefined {
  for (const shadow of shadowsOf(ip)) if (!taken(shadow)) return shadow;
  return undefined;
}

function balanced(value: number): number {
  return ((value % MODULUS) + MODULUS) % MODULUS;
}

function wordsOf(ip: string): number[] {
  const bytes = ipaddr.parse(ip).toByteArray();
  const words: number[] = [];
  for (let i = 0; i < bytes.length; i += 2) words.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  return words;
}

function textOf(words: readonly number[]): string {
  return ipaddr.fromByteArray(words.flatMap((word) => [word >> 8, word & 0xff])).toString();
}

/** Families in which a pod with these addresses has a shadow. */
export function shadowFamilies(ips: readonly string[]): Family[] {
  return ([4, 6] as const).filter((family) => ips.some((ip) => familyOf(ip) === family));
}
