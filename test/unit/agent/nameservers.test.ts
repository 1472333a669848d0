// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { nameserversFrom } from "../../../src/agent/nameservers.ts";
import { parseNameservers } from "../../../src/sys/resolv-conf.ts";
import { makePod } from "../../fakes/parts.ts";

const of = nameserversFrom({ cluster: ["10.96.0.10"], node: ["192.168.1.1"] });

test.each([
  ["ClusterFirst", [], ["10.96.0.10"]],
  ["ClusterFirstWithHostNet", [], ["10.96.0.10"]],
  ["ClusterFirst", ["9.9.9.9", "10.96.0.10"], ["10.96.0.10", "9.9.9.9"]],
  ["Default", [], ["192.168.1.1"]],
  ["None", ["FD00::1", "nonsense"], ["fd00::1"]],
])("dnsPolicy %s with dnsConfig %j", (dnsPolicy, dnsNameservers, expected) => {
  expect(of(makePod("web", { dnsPolicy, dnsNameservers }))).toEqual(expected);
});

test("an unknown list captures every nameserver", () => {
  expect(nameserversFrom({ cluster: undefined, node: undefined })(makePod("web"))).toBeUndefined();
});

test("resolv.conf: only nameserver lines with an address count", () => {
  const text =
    "# nameserver 1.1.1.1\nnameserver 10.96.0.10\n nameserver\tfe80::1%eth0\nnameserver none\nsearch a.b\noptions ndots:5\n";
  expect(parseNameservers(text)).toEqual(["10.96.0.10", "fe80::1"]);
});
