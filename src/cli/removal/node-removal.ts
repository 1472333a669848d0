// SPDX-License-Identifier: Apache-2.0
// Gives a node back by hand, without agent and API server: what an agent does that nobody follows, and the rest.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { planRestore, removeTemporaries, restore } from "../../../install/restore.ts";
import type { Config } from "../../core/config/config.ts";
import { AgentError } from "../../core/errors.ts";
import type { ProbeHeir } from "../../core/ports/probes.ts";
import type { LogFields, Logger, Metrics } from "../../core/ports/telemetry.ts";
import { counted } from "../../core/report/words.ts";
import { HOME } from "../../dataplane/ebpf/node.ts";
import { readLeftExemption, trimExemption } from "../../dataplane/probe-exemption/leftover.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { findHostNetns } from "../../netns/host.ts";
import { HostMounts } from "../../sys/mounts.ts";
import { Proc } from "../../sys/proc.ts";
import { type Captive, closeAll, findCaptives } from "./captives.ts";
import { Releaser } from "./release.ts";
import { livingAgent, removeRunFiles } from "./run-files.ts";
import { Steps, type TakenStep } from "./steps.ts";

export interface RemovalOptions {
  readonly config: Config;
  readonly binding: NativeBinding;
  readonly uncapture: boolean;
  readonly dryRun: boolean;
  readonly force: boolean;
  /** Hears of each step, and of what a person should know besides. */
  readonly told: (step: TakenStep) => void;
  readonly warned: (message: string) => void;
}

export interface RemovalOutcome {
  readonly steps: readonly TakenStep[];
  /** Pods that are captured still. */
  readonly captured: readonly Captive[];
  readonly failed: boolean;
  readonly denied: boolean;
}

const noMetrics: Metrics = { count: () => undefined, set: () => undefined, observe: () => undefined };

/** @throws AgentError AGENT_RUNS | NOT_PERMITTED | PROC_UNREADABLE | HOST_NETNS_UNKNOWN before anything is changed */
export async function removeFromNode(options: RemovalOptions): Promise<RemovalOutcome> {
  const { config, binding, uncapture, dryRun, force, warned } = options;
  if (process.geteuid?.() !== 0) throw new AgentError("NOT_PERMITTED", "not permitted", "this needs root");
  const agent = await livingAgent(config);
  if (agent !== undefined && !force) {
    const runs = `an agent is running on this node: it answers at ${agent}`;
    if (!dryRun) {
      throw new AgentError("AGENT_RUNS", runs, "delete its DaemonSet first, which gives the node back too; or --force");
    }
    warned(`${runs}; while it does, nothing of this is done without --force`);
  }
  const logger = warningsTo(warned);
  const steps = new Steps(dryRun, options.told);
  const found = await findCaptives(binding, config.procDir);
  const held = [...found];
  try {
    await giveBackConfiguration(config, steps, logger);
    let captured = found;
    const ours = found.filter(({ handedOver }) => !handedOver);
    if (uncapture && ours.length > 0) {
      await new Releaser({ config, binding, logger, metrics: noMetrics }).release(ours, steps);
      captured = dryRun ? found.filter(({ handedOver }) => handedOver) : await findCaptives(binding, config.procDir);
      if (!dryRun) held.push(...captured);
    }
    await clearHost(options, captured, steps, logger);
    await removeRunFiles(config, steps);
    return { steps: steps.taken, captured, failed: steps.failed, denied: steps.denied };
  } finally {
    closeAll(held);
  }
}

async function giveBackConfiguration(config: Config, steps: Steps, logger: Logger): Promise<void> {
  const plan = await planRestore(config).catch(() => undefined);
  if (plan?.changes.length === 0 && plan.unread.length === 0) {
    // Of a removal that was killed temporary files may be all that is left.
    if (!steps.dryRun) await removeTemporaries(config);
    return;
  }
  await steps.take(["give back", "gave back"], `the CNI configuration in ${config.cniNetDir}`, () =>
    restore(config, logger),
  );
}

/** What captured pods need stays: their exemption, and eBPF's programs for those that it captures. */
async function clearHost(
  { config, binding }: RemovalOptions,
  captured: readonly Captive[],
  steps: Steps,
  logger: Logger,
): Promise<void> {
  const { handle: host } = findHostNetns(new Proc(config.procDir), false);
  try {
    const heirs: ProbeHeir[] = captured.map(({ uid, ips, engines }) => ({
      uid,
      ips,
      engine: engines[0] ?? "nftables",
    }));
    const probes = { ipv4: config.probeIpv4, ipv6: config.probeIpv6 };
    const trim = () => trimExemption(binding, host, heirs, probes, logger);
    const { owners } = readLeftExemption(binding, host);
    const wanted = heirs.flatMap(({ ips }) => ips);
    if (wanted.length === 0 && owners !== undefined) {
      await steps.take(["remove", "removed"], "the probe exemption of the node", trim);
    } else if (wanted.length > 0 && !agrees(owners, heirs)) {
      const what = `the probe exemption to ${counted(heirs.length, "captured pod")}`;
      await steps.take(["limit", "limited"], what, trim);
    } else if (!steps.dryRun) await trim();
  } finally {
    host.close();
  }
  const bpffs = new HostMounts(config.procDir).bpffs();
  const pins = bpffs.path === undefined ? undefined : join(bpffs.path, HOME);
  const needed = captured.some(({ engines }) => engines.length === 0 || engines.includes("ebpf"));
  if (pins === undefined || needed || !existsSync(pins)) return;
  await steps.take(["remove", "removed"], `programs and maps in /sys/fs/bpf/${HOME}`, () => binding.bpfRemove(pins));
}

function agrees(owners: ReadonlyMap<string, string> | undefined, heirs: readonly ProbeHeir[]): boolean {
  const wanted = new Map(heirs.flatMap(({ uid, ips }) => ips.map((ip) => [ip, uid] as const)));
  return owners?.size === wanted.size && [...wanted].every(([ip, uid]) => owners.get(ip) === uid);
}

function warningsTo(warned: (message: string) => void): Logger {
  const tell = (message: string, fields: LogFields = {}) => {
    const details = Object.entries(fields).map(([key, value]) => `${key}: ${String(value)}`);
    warned(details.length === 0 ? message : `${message} (${details.join(", ")})`);
  };
  const logger: Logger = {
    debug: () => undefined,
    info: () => undefined,
    warn: tell,
    error: tell,
    child: () => logger,
  };
  return logger;
}
