// SPDX-License-Identifier: Apache-2.0
import * as dnsPacket from "dns-packet";
import { addressesOf, findService } from "./dns-names.ts";
import { type Journal, quoted } from "./journal.ts";
import type { LocalWorkload } from "./local-workload.ts";
import type { MeshWorkload } from "./mesh.ts";
import type { Settings } from "./settings.ts";

const TTL_SECONDS = 30;
/** Response codes in the low bits of the flags (RFC 1035 4.1.1). */
const CODE = { formatError: 1, serverFailure: 2, notImplemented: 4 } as const;
const RCODE_MASK = 0xf;
const OPCODE_SHIFT = 11;
const EDNS_MIN = 512;

/** Sends a query on, answers what came back; undefined when there is nobody to ask or nobody answered. */
export type Forward = (query: Buffer) => Promise<Buffer | undefined>;

export interface DnsContext {
  readonly settings: Settings;
  readonly journal: Journal;
  readonly local: LocalWorkload;
  readonly forward: Forward;
}

/**
 * The answer to one query; undefined for what is no DNS message. A and AAAA of mesh services are answered
 * here, everything else by the upstream resolver. Over UDP an answer beyond the client's limit is truncated.
 */
export async function answer(context: DnsContext, message: Buffer, udp: boolean): Promise<Buffer | undefined> {
  let query: dnsPacket.DecodedPacket;
  try {
    query = dnsPacket.decode(message);
  } catch {
    return undefined;
  }
  const [question] = query.questions ?? [];
  if (query.type !== "query" || question === undefined) return reply(query, { code: CODE.formatError });
  if ((((query.flags ?? 0) >> OPCODE_SHIFT) & RCODE_MASK) !== 0) return reply(query, { code: CODE.notImplemented });
  let client: MeshWorkload;
  try {
    client = await context.local.get();
  } catch {
    return reply(query, { code: CODE.serverFailure });
  }
  const log = (result: string, endpoints: number) =>
    context.journal.event({
      event: "dns",
      src: client.name,
      query: question.type,
      domain: question.name,
      result,
      endpoints,
    });
  const { directory } = context.local.meshFile;
  const { clusterDomain, ipv6 } = context.settings;
  const isAddress = question.type === "A" || question.type === "AAAA";
  const match = isAddress ? findService(directory, client, question.name.replace(/\.$/, ""), clusterDomain) : undefined;
  if (match === undefined) {
    const answered = await context.forward(message);
    log(answered === undefined ? "forwarding failed" : "forwarded", 0);
    return answered ?? reply(query, { code: CODE.serverFailure });
  }
  const family = question.type === "A" ? 4 : 6;
  const addresses = family === 6 && !ipv6 ? [] : addressesOf(match.service, client, family);
  const name = match.stripped ?? question.name;
  const records: dnsPacket.Answer[] = addresses.map((data) =>
    family === 4 ? { type: "A", name, data, ttl: TTL_SECONDS } : { type: "AAAA", name, data, ttl: TTL_SECONDS },
  );
  if (match.stripped !== undefined && records.length > 0) {
    records.unshift({ type: "CNAME", name: question.name, data: match.stripped, ttl: TTL_SECONDS });
  }
  log(records.length > 0 ? "success" : "no records", addresses.length);
  const whole = reply(query, { records });
  return udp && whole.length > payloadLimit(query) ? reply(query, { truncated: true }) : whole;
}

/** For what went wrong on the way to or from a client. */
export function logDnsFailure(journal: Journal, error: unknown): void {
  journal.log("warn", "dns", "DNS server error", { error: quoted(String(error)) });
}

interface Reply {
  readonly code?: number;
  readonly records?: readonly dnsPacket.Answer[];
  readonly truncated?: boolean;
}

function reply(query: dnsPacket.DecodedPacket, { code = 0, records, truncated = false }: Reply): Buffer {
  const flags =
    ((query.flags ?? 0) & dnsPacket.RECURSION_DESIRED) |
    dnsPacket.RECURSION_AVAILABLE |
    (code === 0 ? dnsPacket.AUTHORITATIVE_ANSWER : 0) |
    (truncated ? dnsPacket.TRUNCATED_RESPONSE : 0) |
    (code & RCODE_MASK);
  const edns = optionOf(query);
  return dnsPacket.encode({
    type: "response",
    id: query.id ?? 0,
    flags,
    questions: query.questions ?? [],
    answers: [...(records ?? [])],
    additionals:
      edns === undefined
        ? []
        : [
            {
              type: "OPT",
              name: ".",
              udpPayloadSize: payloadLimit(query),
              flags: 0,
              options: [],
              extendedRcode: 0,
              ednsVersion: 0,
              flag_do: false,
            },
          ],
  });
}

function optionOf(query: dnsPacket.DecodedPacket): dnsPacket.OptAnswer | undefined {
  return query.additionals?.find((each): each is dnsPacket.OptAnswer => each.type === "OPT");
}

function payloadLimit(query: dnsPacket.DecodedPacket): number {
  return Math.max(EDNS_MIN, optionOf(query)?.udpPayloadSize ?? EDNS_MIN);
}
