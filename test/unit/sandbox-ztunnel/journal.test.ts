// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { ConnectionRecord, logEarlyDeny } from "../../../src/sandbox/ztunnel/connection-record.ts";
import { Journal, type StandInEvent } from "../../../src/sandbox/ztunnel/journal.ts";

const NOW = new Date("2026-01-02T03:04:05.678Z");

function recorder() {
  const lines: string[] = [];
  const events: StandInEvent[] = [];
  const journal = new Journal(
    (line) => lines.push(line),
    (event) => events.push(event),
    () => NOW,
  );
  return { lines, events, journal };
}

const client = { address: "10.0.0.2", port: 1234 };
const server = { address: "fd00::3", port: 15008 };

describe("the access log", () => {
  it("has ztunnel's line and the same facts as an event", () => {
    const { lines, events, journal } = recorder();
    const record = new ConnectionRecord(journal, {
      direction: "inbound",
      src: client,
      srcWorkload: undefined,
      srcIdentity: "spiffe://a/ns/b/sa/c",
      dst: server,
      dstWorkload: undefined,
      dstIdentity: undefined,
      hboneTarget: "[fd00::3]:8080",
      service: undefined,
    });
    record.addSent(10);
    record.addReceived(20);
    record.complete();
    record.complete("a second end");
    expect(lines).toEqual([
      expect.stringMatching(
        /^2026-01-02T03:04:05\.678Z\tinfo\taccess\tconnection complete\tsrc\.addr=10\.0\.0\.2:1234 src\.identity="spiffe:\/\/a\/ns\/b\/sa\/c" dst\.addr=\[fd00::3\]:15008 dst\.hbone_addr=\[fd00::3\]:8080 direction="inbound" bytes_sent=20 bytes_recv=10 duration="\d+ms"$/,
      ),
    ]);
    expect(events).toEqual([
      expect.objectContaining({ event: "connection opened", src: "10.0.0.2:1234", direction: "inbound" }),
      expect.objectContaining({
        event: "connection complete",
        bytesSent: 20,
        bytesReceived: 10,
        dst: "[fd00::3]:15008",
      }),
    ]);
    expect(events[1]).not.toHaveProperty("error");
  });

  it("says why a connection was refused", () => {
    const { lines, events, journal } = recorder();
    logEarlyDeny(journal, "outbound", client, server, 'no "way"');
    expect(lines).toEqual([
      '2026-01-02T03:04:05.678Z\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.2:1234 dst.addr=[fd00::3]:15008 direction="outbound" error="no \\"way\\""',
    ]);
    expect(events).toEqual([expect.objectContaining({ event: "connection failed", error: 'no "way"' })]);
  });
});
