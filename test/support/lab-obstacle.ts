// SPDX-License-Identifier: Apache-2.0
// Run by tests in a changed environment, in a pod's netns: prints why the iptables engine can't capture
// that pod, as JSON.
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../src/core/constants.ts";
import { IptablesEngine } from "../../src/dataplane/iptables/engine.ts";
import { native } from "../../src/native/load.ts";
import { openNetns } from "../../src/native/netns.ts";
import { quiet } from "./lab-dataplane.ts";

const engine = new IptablesEngine(native(), quiet, { variant: undefined });
await engine.selfTest();
using pod = openNetns("/proc/self/ns/net");
const spec = {
  uid: "u",
  pod: "default/app",
  ips: [],
  ipv6: true,
  dnsCapture: true,
  dnsServers: undefined,
  bypassInbound: false,
  rerouteInterfaces: [],
  excludeOutboundCidrs: [],
  probeIpv4: PROBE_SNAT_IPV4,
  probeIpv6: PROBE_SNAT_IPV6,
};
console.log(JSON.stringify(engine.ineligible(pod, spec) ?? null));
engine.close();
