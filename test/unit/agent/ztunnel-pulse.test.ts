// SPDX-License-Identifier: Apache-2.0
// A ztunnel that does not answer shows by what lasts: what is there at one look is nothing.
import { expect, test } from "vitest";
import { Roster } from "../../../src/agent/roster.ts";
import { ZtunnelPulse } from "../../../src/agent/ztunnel-pulse.ts";
import { FakeParts } from "../../fakes/parts.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";

class Parts extends FakeParts {
  override readonly metrics = new MetricRecorder();
  override readonly logger = new LogRecorder();
  at = 0;
  override readonly clock = { now: () => this.at, after: () => () => undefined };
}

/** An agent's pulse with one captured pod, and a way to let time pass. */
function pulsing() {
  const parts = new Parts();
  const roster = new Roster();
  const enrollment = roster.ensure(parts.run("web"));
  enrollment.adoptNetns({ id: "ns-web", fd: -1, close: () => undefined, [Symbol.dispose]: () => undefined });
  enrollment.state = "enrolled";
  const pulse = new ZtunnelPulse(parts, roster);
  /** Looks once a second. */
  const pass = async (seconds: number, waiting?: (second: number) => number) => {
    for (let second = 0; second < seconds; second++) {
      const connections = waiting?.(second) ?? 0;
      parts.dataplane.waiting.set("ns-web", connections === 0 ? [] : [{ listener: 1n, port: 15001, connections }]);
      parts.at += 1000;
      await pulse.look();
    }
  };
  const gauge = (sign: string) => parts.metrics.gauges.get(`ambient_cni_ztunnel_stuck${JSON.stringify({ sign })}`);
  return { parts, pulse, pass, gauge, enrollment };
}

test("connections that nobody accepts are told within seven seconds, and until one is", async () => {
  const { parts, pulse, pass, gauge } = pulsing();
  await pass(2);
  await pass(7, () => 3);
  expect(pulse.stuck()).toEqual([
    {
      sign: "listener",
      detail: "at port 15001 in shop/web 3 connections wait, and none is seen accepted",
      seconds: expect.any(Number),
    },
  ]);
  expect(gauge("listener")).toBe(1);
  expect(gauge("process")).toBe(0);
  await pass(1, () => 4);
  expect(pulse.stuck()[0]?.detail).toMatch(/ 4 connections wait, and none is seen accepted$/);
  // The queue has become shorter: somebody accepts.
  await pass(1, () => 3);
  expect(pulse.stuck()).toEqual([]);
  expect(gauge("listener")).toBe(0);
  expect(parts.logger.lines.map(({ level, message }) => [level, message])).toEqual([
    ["error", "ztunnel does not answer"],
    ["info", "ztunnel answers again"],
  ]);
});

test("a busy one that goes on accepting is not one that hangs", async () => {
  const { pulse, pass } = pulsing();
  await pass(40, (second) => [5, 9, 3, 0, 7, 2][second % 6] ?? 0);
  expect(pulse.stuck()).toEqual([]);
  // Another listener at the port: that of the next ztunnel.
  const { parts, pulse: next, pass: wait } = pulsing();
  await wait(6, () => 1);
  parts.at += 1000;
  parts.dataplane.waiting.set("ns-web", [{ listener: 2n, port: 15001, connections: 1 }]);
  await next.look();
  expect(next.stuck()).toEqual([]);
});

test("a process that is stopped is told within four seconds, without any connection", async () => {
  const { parts, pulse, pass, gauge } = pulsing();
  await pass(1);
  parts.stopped.push(4711);
  await pass(1);
  expect(pulse.stuck()).toEqual([]);
  await pass(3);
  expect(pulse.stuck()).toEqual([{ sign: "process", detail: "its process 4711 is stopped", seconds: 3 }]);
  expect(gauge("process")).toBe(1);
  parts.stopped.pop();
  await pass(1);
  expect(pulse.stuck()).toEqual([]);
  expect(gauge("process")).toBe(0);
});

test("pods that are not captured yet are left alone, and a netns that has gone ends no look", async () => {
  const { parts, pulse, pass, enrollment } = pulsing();
  enrollment.state = "pending";
  await pass(10, () => 1);
  expect(pulse.stuck()).toEqual([]);
  enrollment.state = "enrolled";
  parts.dataplane.unaccepted = () => {
    throw new Error("setns: EINVAL");
  };
  parts.stopped.push(1);
  await pass(5);
  expect(pulse.stuck()).toHaveLength(1);
  expect(parts.logger.lines.map(({ message }) => message)).toEqual(["ztunnel does not answer"]);
});
