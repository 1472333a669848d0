// SPDX-License-Identifier: Apache-2.0
// A lab ztunnel in a process and cgroup of its own. Arguments: cgroup directory, path of the pod's netns.
// Lines on stdin: "listen" opens the listeners, "close" closes them and nothing else, "accepted" tells what came since
// it listens; each is answered by a line of JSON.
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { openNetns } from "../../src/native/netns.ts";
import { LabZtunnel } from "./lab-ztunnel.ts";

const [, , cgroup = "", path = ""] = process.argv;
// A socket belongs to the cgroup that its maker is in.
writeFileSync(`${cgroup}/cgroup.procs`, String(process.pid));
const netns = openNetns(path);
let ztunnel: LabZtunnel | undefined;

for await (const line of createInterface({ input: process.stdin })) {
  if (line === "listen") ztunnel = await LabZtunnel.start(netns);
  if (line === "close") await ztunnel?.closeListeners();
  process.stdout.write(`${JSON.stringify(ztunnel?.accepted ?? [])}\n`);
}
