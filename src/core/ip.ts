// SPDX-License-Identifier: Apache-2.0
import ipaddr from "ipaddr.js";

export type Family = 4 | 6;

/** Four decimal parts without leading zeros. */
const IPV4 = /^(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}$/;

/**
 * Canonical text of an address: lower case, shortest IPv6 form, v4-mapped IPv6 unmapped, no zone.
 * Every address is brought to this form where it enters, so that later code compares strings.
 * @throws Error that names the value when it is no IP address.
 */
export function canonicalIp(text: string): string {
  const bare = text.split("%", 1)[0] ?? "";
  // Canonical as it is, and read by the hundred for one document.
  if (IPV4.test(bare)) return bare;
  if (!bare.includes(":") || !ipaddr.isValid(bare)) throw new Error(`not an IP address: ${JSON.stringify(text)}`);
  return ipaddr.process(bare).toString();
}

/** Family of a canonical address. */
export function familyOf(ip: string): Family {
  return ip.includes(":") ? 6 : 4;
}

/**
 * Canonical text of a CIDR with its host bits cleared; a bare address becomes /32 or /128.
 * @throws Error that names the value when it is no CIDR.
 */
export function canonicalCidr(text: string): string {
  const [address = "", prefixText, ...rest] = text.trim().split("/");
  const fail = () => new Error(`not a CIDR: ${JSON.stringify(text)}`);
  if (rest.length > 0 || !ipaddr.isValid(address)) throw fail();
  const ip = ipaddr.parse(canonicalIp(address));
  const bits = ip.kind() === "ipv4" ? 32 : 128;
  if (prefixText !== undefined && !/^\d{1,3}$/.test(prefixText)) throw fail();
  const prefix = prefixText === undefined ? bits : Number(prefixText);
  if (prefix > bits) throw fail();
  const network =
    ip.kind() === "ipv4"
      ? ipaddr.IPv4.networkAddressFromCIDR(`${ip.toString()}/${prefix}`)
      : ipaddr.IPv6.networkAddressFromCIDR(`${ip.toString()}/${prefix}`);
  return `${network.toString()}/${prefix}`;
}

/** Whether a canonical address lies in a CIDR; never when their families differ. */
export function inCidr(ip: string, cidr: string): boolean {
  const [network, prefix] = ipaddr.parseCIDR(cidr);
  const address = ipaddr.parse(ip);
  return network.kind() === address.kind() && address.match(network, prefix);
}
