// SPDX-License-Identifier: Apache-2.0
// Run by tests in a changed environment, in a pod's netns: prints why the iptables engine can't capture
// that pod, as JSON.
import { IptablesEngine } from "../../src/dataplane/iptables/engine.ts";
import { native } from "../../src/native/load.ts";
import { openNetns } from "../../src/native/netns.ts";
import { CAPTURE_SPEC } from "../fixtures/capture-spec.ts";
import { quiet } from "./lab-dataplane.ts";

const engine = new IptablesEngine(native(), quiet, { variant: undefined });
await engine.selfTest();
using pod = openNetns("/proc/self/ns/net");
console.log(JSON.stringify(engine.ineligible(pod, { ...CAPTURE_SPEC, ips: [] }) ?? null));
engine.close();
