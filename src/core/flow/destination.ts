// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../errors.ts";
import { canonicalIp } from "../ip.ts";

export interface Destination {
  /** Canonical. */
  readonly address: string;
  readonly port: number;
}

export const DEFAULT_PORT = 80;

/**
 * `host[:port]`, `[IPv6][:port]` or a bare IPv6 address, apart; without a port, 80.
 * @throws AgentError BAD_REQUEST that names the value
 */
export function splitDestination(text: string): { readonly host: string; readonly port: number } {
  const bracketed = /^\[([^\]]*)\](?::(\d{1,5}))?$/.exec(text);
  const plain = /^([^:[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const [, host, digits] = bracketed ?? plain ?? [];
  const port = digits === undefined ? DEFAULT_PORT : Number(digits);
  if (port < 1 || port > 65_535) bad(text);
  if (host !== undefined) return { host, port };
  return { host: canonical(text) ?? bad(text), port };
}

/** @throws AgentError BAD_REQUEST that names the value */
export function parseDestination(text: string): Destination {
  const { host, port } = splitDestination(text);
  const address = canonical(host);
  if (address === undefined) bad(text);
  return { address, port };
}

function canonical(text: string): string | undefined {
  try {
    return canonicalIp(text);
  } catch {
    return undefined;
  }
}

function bad(text: string): never {
  throw new AgentError(
    "BAD_REQUEST",
    `${JSON.stringify(text.slice(0, 100))} is no address with a port`,
    "10.1.9.4:8080, or [fd00::4]:8080",
  );
}
