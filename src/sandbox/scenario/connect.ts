// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { messageOf } from "../../core/errors.ts";
import { type AccessLine, accessLines } from "../access-log.ts";
import { type Exchange, HTTP_PORT } from "../app/protocol.ts";
import { AppError } from "../app/remote.ts";
import { expectEqual, expectThat } from "../checks.ts";
import { addressOf, told, url } from "../demo-words.ts";
import { BRIDGE } from "../network.ts";
import { probe } from "../node-command.ts";
import { until } from "../until.ts";
import { hasPort, Wire } from "../wire.ts";
import type { StepOf } from "./schema.ts";
import type { Stage } from "./stage.ts";

const HBONE_PORT = 15008;
/** For what must not be logged, and for what must: a ztunnel writes when a connection has ended. */
const QUIET_MS = 300;
const LOGGED_MS = 3000;

type Connect = StepOf<"connect">;

/** One request, and whether it was what was expected of it: who answered, what each saw, what went over the wire. */
export async function connectStep(stage: Stage, step: Connect): Promise<string> {
  const { expect } = step;
  const marks = logMarks(stage);
  const { outcome, bytes, marker } = await request(stage, step);
  const facts: string[] = [];
  if (expect.wire !== undefined && bytes !== undefined) facts.push(onTheWire(expect.wire, bytes, marker));
  if (outcome instanceof Error) {
    if (expect.refused === undefined) throw outcome;
    const code = outcome instanceof AppError ? outcome.code : messageOf(outcome);
    expectThat(`it failed with ${code}, not ${expect.refused}`, expect.refused === "any" || code === expect.refused);
    return [`refused: ${code}`, ...facts].join("; ");
  }
  expectThat(`it was answered: ${told(outcome)}`, expect.refused === undefined);
  const name = expect.answered ?? "";
  expectEqual("who answered", outcome.server, name.slice(name.indexOf("/") + 1));
  const server = isIP(expect.client ?? "") === 0 ? undefined : expect.client;
  if (expect.client !== undefined) {
    expectEqual(
      "client address at the server",
      addressOf(outcome.clientSeen),
      server ?? stage.address(expect.client, step.family),
    );
  }
  for (const direction of ["outbound", "inbound"] as const) {
    const node = expect[direction];
    if (node !== undefined) facts.push(await carried(stage, marks, direction, node, outcome));
  }
  const heard = outcome.clientPeer === "" ? `${outcome.server} answered; it saw ${outcome.clientSeen}` : told(outcome);
  return [heard, ...facts].join("; ");
}

interface Requested {
  readonly outcome: Exchange | Error;
  /** undefined: nobody listened. */
  readonly bytes: Buffer | undefined;
  readonly marker: string;
}

async function request(stage: Stage, step: Connect): Promise<Requested> {
  const { connect: from, to, family, expect } = step;
  const port = step.port ?? (stage.scenario.services[to] === undefined ? HTTP_PORT : 80);
  const marker = `marker-${randomUUID()}`;
  const attempt = () => once(stage, from, stage.address(to, family), port, marker).catch(asError);
  if (expect.wire === undefined) return { outcome: await retried(attempt, step), bytes: undefined, marker };
  const { node } = stage.nodeOf(from);
  const { result, bytes } = await Wire.during(node, BRIDGE, () => retried(attempt, step));
  return { outcome: result, bytes, marker };
}

/** Once, or until it comes out as expected within the time that the step gives. */
async function retried(
  attempt: () => Promise<Exchange | Error>,
  { within, expect }: Connect,
): Promise<Exchange | Error> {
  const deadline = Date.now() + (within ?? 0);
  for (;;) {
    const outcome = await attempt();
    if (outcome instanceof Error === (expect.refused !== undefined) || Date.now() >= deadline) return outcome;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function once(stage: Stage, from: string, ip: string, port: number, marker: string): Promise<Exchange> {
  if (from.includes("/")) return stage.app(from).fetch(url(ip, port), marker);
  // The node's own addresses are not known to it.
  return {
    clientPeer: "",
    clientLocal: "",
    milliseconds: 0,
    ...JSON.parse(await probe(stage.node(from).node, ip, port)),
  };
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

function onTheWire(expected: "clear" | "hbone" | "nothing", bytes: Buffer, marker: string): string {
  const clear = bytes.includes(marker);
  const hbone = hasPort(bytes, HBONE_PORT);
  const seen = clear ? "clear" : hbone ? "hbone" : "nothing";
  expectEqual(`what crossed ${BRIDGE}`, seen, expected);
  return { clear: "readable on the wire", hbone: "HBONE on the wire", nothing: "nothing of it on the wire" }[seen];
}

/** Where each ztunnel's log ended before, by its path. */
function logMarks(stage: Stage): ReadonlyMap<string, number> {
  const logs = stage.sandboxes.flatMap(({ ztunnels }) => ztunnels.map(({ log }) => log));
  return new Map(logs.map((log) => [log, existsSync(log) ? statSync(log).size : 0]));
}

/** Finds who carried the connection in the access logs. */
async function carried(
  stage: Stage,
  marks: ReadonlyMap<string, number>,
  direction: "outbound" | "inbound",
  expected: string,
  exchange: Exchange,
): Promise<string> {
  const find = () => {
    for (const { name, ztunnels } of stage.sandboxes) {
      for (const { log } of ztunnels) {
        const line = accessLines(log, marks.get(log) ?? 0).find((each) => matches(each, direction, exchange));
        if (line !== undefined) return { node: name, line };
      }
    }
    return undefined;
  };
  if (expected === "none") await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  else await until(`a ztunnel logs it as ${direction}`, () => find() !== undefined, LOGGED_MS);
  const found = find();
  expectEqual(`node whose ztunnel logged it as ${direction}`, found?.node ?? "none", expected);
  const identity = found?.line.sourceIdentity;
  return found === undefined
    ? `no ztunnel ${direction}`
    : `${direction} by ztunnel of ${found.node}${identity === undefined ? "" : ` from ${identity}`}`;
}

function matches(line: AccessLine, direction: "outbound" | "inbound", exchange: Exchange): boolean {
  if (line.direction !== direction) return false;
  if (direction === "outbound") return line.source === exchange.clientLocal;
  return (
    addressOf(line.source) === addressOf(exchange.clientSeen) &&
    (line.target ?? line.destination) === exchange.serverSeen
  );
}
