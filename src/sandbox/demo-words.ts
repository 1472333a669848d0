// SPDX-License-Identifier: Apache-2.0
import type { Exchange } from "./app/protocol.ts";
import { AppError } from "./app/remote.ts";

/** Of the program in a pod. */
export const url = (ip: string, port = 8080): string => `http://${ip.includes(":") ? `[${ip}]` : ip}:${port}/`;
export const endpoint = (ip: string, port: number): string => `${ip}:${port}`;
export const addressOf = (seen: string): string => seen.slice(0, seen.lastIndexOf(":"));
/** Evidence. */
export const told = (exchange: Exchange): string =>
  `${exchange.server} answered; it saw ${exchange.clientSeen} at ${exchange.serverSeen}; the client's peer is ${exchange.clientPeer}`;

/** The failure of something that must fail. @throws Error when it succeeds. */
export async function refusal(attempt: Promise<Exchange>): Promise<AppError> {
  const outcome = await attempt.catch((error: unknown) => error);
  if (outcome instanceof AppError) return outcome;
  if (outcome instanceof Error) throw outcome;
  throw new Error(`it was answered: ${JSON.stringify(outcome)}`);
}
