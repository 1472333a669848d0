// SPDX-License-Identifier: Apache-2.0
// How long what kubelet mounts for the agent is good for. Nothing of it is checked: the API server does.
import { X509Certificate } from "node:crypto";
import { isRecord, recordOf } from "./json.ts";

export interface TokenLife {
  /** When it ends, in ms; undefined: never. */
  readonly expiresAt: number | undefined;
  /** When kubelet should have replaced it: the API server makes it last longer than was asked for. */
  readonly renewBy: number | undefined;
}

/** Claims of a service account's token (a JWT); undefined for a token that shows none. */
export function tokenLife(token: string): TokenLife | undefined {
  const [, payload, ...rest] = token.trim().split(".");
  if (payload === undefined || rest.length !== 1) return undefined;
  let claims: unknown;
  try {
    claims = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
  if (!isRecord(claims)) return undefined;
  const { warnafter } = recordOf(claims["kubernetes.io"]);
  return { expiresAt: milliseconds(claims.exp), renewBy: milliseconds(warnafter) ?? milliseconds(claims.exp) };
}

const milliseconds = (seconds: unknown) => (typeof seconds === "number" ? seconds * 1000 : undefined);

/** When the last of a bundle's certificates ends, in ms; undefined when none can be read. */
export function authorityEnd(bundle: string): number | undefined {
  const ends = (bundle.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? []).flatMap((block) => {
    try {
      return [Date.parse(new X509Certificate(block).validTo)];
    } catch {
      return [];
    }
  });
  return ends.length === 0 ? undefined : Math.max(...ends);
}
