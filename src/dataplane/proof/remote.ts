// SPDX-License-Identifier: Apache-2.0
import ipaddr from "ipaddr.js";
import { familyOf } from "../../core/ip.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { NOBODY } from "../nobody.ts";

const MAIN_TABLE = 254;
/** With less there is no address between the pod's own and the broadcast address. */
const LONGEST_PREFIX = 29;

/**
 * From whom a made-up call comes. The pod answers it, and on a node without a route to nobody at all that answer
 * comes back as an ICMP error, by which IPv4 forgets the call before it is seen (tcp_v4_err, TCP_NEW_SYN_RECV).
 * There it comes from an unused address of the pod's own subnet: the answer waits for an ARP reply. undefined
 * where that can't be either.
 */
export function remoteFor(binding: NativeBinding, netns: number, host: number, ip: string): string | undefined {
  const family = familyOf(ip);
  if (family === 6) return NOBODY[6];
  if (binding.routes(host, 4, MAIN_TABLE).some(({ prefix }) => prefix === 0)) return NOBODY[4];
  const prefix = binding.addresses(netns).find(({ address }) => address === ip)?.prefix ?? 32;
  if (prefix > LONGEST_PREFIX) return undefined;
  const last = ipaddr.IPv4.broadcastAddressFromCIDR(`${ip}/${prefix}`).toByteArray();
  const unused = ipaddr.fromByteArray(last.map((byte, index) => (index === 3 ? byte - 1 : byte))).toString();
  const taken = [...binding.addresses(netns), ...binding.addresses(host)].some(({ address }) => address === unused);
  return taken ? undefined : unused;
}
