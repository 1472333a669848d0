// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from "node:fs";

/** One connection that a ztunnel, real or stand-in, has carried, in its own words. */
export interface AccessLine {
  readonly direction: string;
  /** Address and port without brackets. */
  readonly source: string;
  readonly destination: string;
  /** Of a tunnel: what it leads to. */
  readonly target: string | undefined;
  readonly sourceIdentity: string | undefined;
}

const FIELD = /([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S+)/g;

/** Connections in a ztunnel's log, from a byte on, that have come to an end. */
export function accessLines(path: string, from = 0): AccessLine[] {
  if (!existsSync(path)) return [];
  const text = readFileSync(path).subarray(from).toString("utf8");
  return text.split("\n").flatMap((line) => {
    if (!line.includes("connection complete")) return [];
    const fields = new Map(
      [...line.matchAll(FIELD)].map(([, key = "", value = ""]) => [key, value.replace(/^"|"$/g, "")]),
    );
    const [source, destination, direction] = ["src.addr", "dst.addr", "direction"].map((key) => fields.get(key));
    if (source === undefined || destination === undefined || direction === undefined) return [];
    const target = fields.get("dst.hbone_addr");
    return [
      {
        direction,
        source: bare(source),
        destination: bare(destination),
        target: target === undefined ? undefined : bare(target),
        sourceIdentity: fields.get("src.identity"),
      },
    ];
  });
}

const bare = (endpoint: string): string => endpoint.replace(/^\[(.*)\]:/, "$1:");
