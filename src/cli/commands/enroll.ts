// SPDX-License-Identifier: Apache-2.0
import { Option } from "commander";
import * as v from "valibot";
import { ENGINE_NAMES } from "../../core/ports/dataplane.ts";
import type { EnrollReport } from "../../core/report/manual.ts";
import { manualRequestSchema } from "../../core/report/manual.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { visible } from "../render/text.ts";
import { planText } from "./plan.ts";

interface EnrollOptions {
  readonly netns?: string;
  readonly ip?: readonly string[];
  readonly engine?: string;
  readonly workload?: string;
  readonly serviceAccount: string;
  readonly dryRun?: boolean;
}

/** A capture is verified by real connections, in ms. */
const TIMEOUT_MS = 25_000;

export function addEnroll(program: Program): void {
  addCommand<EnrollOptions>(
    program,
    {
      usage: "enroll",
      summary: "captures a network namespace by hand, for experiments; never one of a pod",
      examples: [
        "ambient-cni enroll --netns /run/netns/lab --ip 10.9.0.2 --dry-run",
        "ambient-cni enroll --netns /run/netns/lab --ip 10.9.0.2 --ip fd00:9::2",
        "ambient-cni enroll --netns /run/netns/lab --ip 10.9.0.2 --workload shop/lab",
      ],
    },
    (command) =>
      command
        .option("--netns <path>", "the network namespace, as its path on the node")
        .option("--ip <address>", "its address, one of each family at most", (ip: string, all: string[] = []) => [
          ...all,
          ip,
        ])
        .addOption(new Option("--engine <name>", "else nftables, if it works").choices(ENGINE_NAMES))
        .option("--workload <namespace/name>", "tell ztunnel to serve it, as this workload of the mesh")
        .option("--service-account <name>", "of the workload", "default")
        .option("--dry-run", "only say what would be done"),
    async (session, options) => {
      const request = requestOf(options);
      const agent = await session.agent(session.globals.timeoutMs ?? TIMEOUT_MS);
      if (options.dryRun === true) {
        const plan = await agent.change("plan", request);
        await session.print(plan, () => planText(plan, session.paint));
        return EXIT.ok;
      }
      const report = await agent.change("enroll", request);
      await session.print(report, () => enrollText(report, options.workload !== undefined));
      return EXIT.ok;
    },
  );
}

/** @throws AgentError USAGE that names the value */
function requestOf({ netns, ip = [], engine, workload, serviceAccount }: EnrollOptions) {
  if (netns === undefined) usageError("--netns names the network namespace");
  const [namespace, name, ...more] = workload?.split("/") ?? [];
  if (workload !== undefined && (name === undefined || more.length > 0)) {
    usageError(`--workload is NAMESPACE/NAME, not ${JSON.stringify(workload)}`);
  }
  const result = v.safeParse(manualRequestSchema, {
    netns,
    ips: ip,
    engine: engine ?? null,
    workload: workload === undefined ? null : { namespace, name, serviceAccount },
  });
  if (result.success) return result.output;
  usageError(result.issues[0].message);
}

export function enrollText({ pod, phases }: EnrollReport, served: boolean): string {
  const lines = Object.entries(phases).map(([name, ms]) => `${visible(name)}: ${ms.toFixed(1)} ms`);
  lines.push(`${visible(pod.uid)} is captured by ${visible(pod.engine ?? "?")} (${pod.ips.map(visible).join(", ")})`);
  const own = pod.engine === "ebpf" ? "" : ", unless something of your own listens on 15001 and 15006";
  lines.push(served ? "ztunnel serves it" : `no ztunnel serves it: its connections are refused${own}`);
  return `${lines.join("\n")}\n`;
}
