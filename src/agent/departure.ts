// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../core/errors.ts";
import { limiter } from "../core/limiter.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";
import type { NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import type { ProbeHeir } from "../core/ports/probes.ts";
import { captureSpec, exemptibleIps } from "./desire.ts";
import type { Enrollment } from "./enrollment.ts";
import type { ManualRecord } from "./manual-record.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** Pods whose rules are written at the same time. */
const CONCURRENCY = 16;
/** How often open proxied connections are counted, in ms. */
const POLL_MS = 100;
/** What the API server and ztunnel get for one answer, in ms: at most, at least, else half of the time left. */
const TELL_MS = { most: 5000, least: 200 };
/** What taking out the rules may take, in ms: for each pod, where a program has to be started for it, and at least. */
const RELEASE_MS = { each: 8, least: 300 };
/** Kept back for the host's objects and the last words, in ms. */
const HOST_MS = 500;
/**
 * How long probes reach a pod that was handed over, if nobody takes care of it: until the other agent has its own
 * exemption, image pull included, and not for ever, since the address may be another pod's one day.
 */
const HANDED_OVER_SECONDS = 3600;
const NAMED = 20;

interface Captive {
  readonly enrollment: Enrollment;
  readonly netns: NetnsHandle;
}

/**
 * The last things an agent does that none of ours follows on this node. The queue has ended before. Nothing
 * here throws: what could not be done is said, and `ambient-cni remove` can do it later.
 */
export class Departure {
  readonly #handedOver = new Set<string>();

  /** When no pod may be begun with any more. */
  readonly #workUntil: number;
  /** When answers are not waited for any more: rules are to be taken out of pods in what is left. */
  #tellUntil: number;

  /** `until`: on the agent's clock, when it has to be over. `unfinished`: pods whose last pass was not awaited. */
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    until: number,
    private readonly unfinished: ReadonlySet<string>,
  ) {
    this.#workUntil = until - HOST_MS;
    this.#tellUntil = this.#workUntil;
    // Pods that have gone, and whose turn did not come any more: their netns live on only through us.
    for (const { uid, admittedUntil, manual } of [...roster.all()]) {
      if (manual !== undefined) continue;
      // One that was read live runs until the watch tells of its end, however long ago that was.
      if (parts.cluster.pod(uid) === undefined && admittedUntil === 0 && !unfinished.has(uid)) roster.remove(uid);
    }
  }

  /**
   * Gives every captured pod to upstream's agent. As many as there is time for, those first that need an agent of
   * ours most; the others stay captured by us, and so does a pod for which it fails.
   */
  async handOver(): Promise<void> {
    const { dataplane, logger } = this.parts;
    const turn = limiter(CONCURRENCY);
    const captives = this.#captives().sort((a, b) => need(b) - need(a));
    const failures = new Map<string, string>();
    await Promise.all(
      captives.map(({ enrollment, netns }) =>
        turn(async () => {
          try {
            this.#checkTime();
            await dataplane.handOver(netns, this.#specOf(enrollment));
            this.#handedOver.add(enrollment.uid);
          } catch (error) {
            failures.set(enrollment.name, messageOf(error));
          }
        }),
      ),
    );
    logger.info("pods handed over to istio-cni", { pods: this.#handedOver.size });
    this.#complain("pods could not be handed over and stay captured by us", failures);
  }

  /** What was captured by hand was meant for an experiment: without the agent it is over. */
  async endManual(record: ManualRecord): Promise<void> {
    for (const { enrollment, netns } of this.#captives(true)) {
      try {
        this.#checkTime();
        await this.#bounded(this.parts.ztunnel.del(enrollment.uid));
        await this.#release(enrollment, netns);
        this.roster.remove(enrollment.uid);
      } catch (error) {
        this.parts.logger.error("what was captured by hand stays so", {
          netns: enrollment.manual?.netns,
          reason: messageOf(error),
        });
      }
    }
    await record.trySave();
  }

  /** Takes every captured pod out of the mesh, with time for its open connections as far as there is some. */
  async uncapture(): Promise<void> {
    const { clock, config, logger } = this.parts;
    const turn = limiter(CONCURRENCY);
    const captives = this.#captives();
    const releaseMs = RELEASE_MS.least + RELEASE_MS.each * captives.length;
    this.#tellUntil = this.#workUntil - releaseMs;
    const drainUntil = Math.min(clock.now() + config.drainSeconds * 1000, this.#tellUntil);
    // With hardly any time for the crowd, those without connections are not asked to end them first.
    const hurried = clock.now() + releaseMs > drainUntil;
    const failures = new Map<string, string>();
    const untold = new Map<string, string>();
    await Promise.all(
      captives.map(async ({ enrollment, netns }) => {
        try {
          if (!hurried || this.parts.dataplane.proxiedConnections(netns) > 0) {
            // On a slow node their turns alone may take all the time: then the rest goes without, and is released.
            await turn(async () => {
              if (clock.now() < drainUntil) await this.#drain(enrollment, netns);
            });
          }
          this.#checkTime();
          const reason = await this.#unannounce(enrollment);
          if (reason !== undefined) untold.set(enrollment.name, reason);
          await this.#proxiedEnd(netns, drainUntil);
          await this.#bounded(this.parts.ztunnel.del(enrollment.uid));
          await turn(() => this.#release(enrollment, netns));
        } catch (error) {
          failures.set(enrollment.name, messageOf(error));
        }
      }),
    );
    logger.info("pods released", { pods: captives.length - failures.size });
    this.#complain("pods could not be released and stay captured", failures);
    this.#complain("the annotation of released pods could not be removed: peers may still send them HBONE", untold);
  }

  /** What of the host pods need that are captured still is kept; everything else goes. */
  async vacate(): Promise<void> {
    const { probes, logger } = this.parts;
    const heirs = this.#heirs();
    try {
      await probes.bequeath(heirs);
    } catch (error) {
      logger.error("the probe exemption can't be left as it should be", { error: messageOf(error) });
    }
    const captured = heirs.filter(({ uid }) => !this.#handedOver.has(uid)).length;
    const inUse = await this.#inUse();
    const kept = inUse === undefined ? ["what was not looked at"] : this.parts.dataplane.vacate(inUse);
    if (captured > 0) {
      logger.warn(
        "pods stay captured, and what they need on the host stays; `ambient-cni remove --uncapture` releases them",
        { captured, kept },
      );
    } else if (kept.length > 0) {
      logger.info("what open connections need stays on the node until they end", { kept });
    } else {
      logger.info("nothing of ours is left on the node but the plugin");
    }
  }

  /** Where a connection may begin: where processes are, and where an ADD has just made room for some. */
  async #inUse(): Promise<ReadonlySet<NetnsId> | undefined> {
    try {
      const inUse = new Set(await this.parts.finder.inhabited());
      for (const { netns } of this.roster.all()) if (netns !== undefined) inUse.add(netns.id);
      return inUse;
    } catch (error) {
      this.parts.logger.error("the node's processes can't be read", { error: messageOf(error) });
      return undefined;
    }
  }

  /** Pods; or what is captured by hand. */
  #captives(manual = false): Captive[] {
    const captives: Captive[] = [];
    for (const enrollment of this.roster.all()) {
      const { netns } = enrollment;
      if ((enrollment.manual !== undefined) !== manual) continue;
      if (netns !== undefined && this.#present(netns)) captives.push({ enrollment, netns });
    }
    return captives;
  }

  /** Rather one too many: without its exemption a captured pod's probes fail, and kubelet restarts it. */
  #heirs(): ProbeHeir[] {
    const { config, dataplane } = this.parts;
    const heirs: ProbeHeir[] = [];
    for (const enrollment of this.roster.all()) {
      const { uid, netns } = enrollment;
      const handedOver = this.#handedOver.has(uid);
      const captured =
        netns === undefined
          ? enrollment.touched || enrollment.annotation === "enabled"
          : this.#present(netns) || this.unfinished.has(uid);
      if (!captured && !handedOver) continue;
      const ips = exemptibleIps(config, enrollment.ips);
      const engine = enrollment.engine ?? dataplane.engine;
      heirs.push({ uid, ips, engine, ...(handedOver ? { seconds: HANDED_OVER_SECONDS } : {}) });
    }
    return heirs;
  }

  #present(netns: NetnsHandle): boolean {
    try {
      return this.parts.dataplane.present(netns);
    } catch {
      // What can't be read may be captured.
      return true;
    }
  }

  /** What it is captured by, whatever its annotations have become. */
  #specOf({ spec, pod, ips }: Enrollment): CaptureSpec {
    const { config, nameservers } = this.parts;
    return spec ?? captureSpec(config, { ...pod, annotations: {} }, ips, nameservers).spec;
  }

  async #drain(enrollment: Enrollment, netns: NetnsHandle): Promise<void> {
    this.#checkTime();
    await this.parts.dataplane.drain(netns, this.#specOf(enrollment));
  }

  /** Returns why the annotation stays, if it does: the right to remove it may be gone with the DaemonSet. */
  async #unannounce({ pod, annotation }: Enrollment): Promise<string | undefined> {
    if (annotation === null) return undefined;
    const { uid, namespace, name } = pod;
    return await this.#bounded(this.parts.cluster.annotate({ uid, namespace, name }, null));
  }

  async #proxiedEnd(netns: NetnsHandle, drainUntil: number): Promise<void> {
    const { clock, dataplane } = this.parts;
    while (clock.now() < drainUntil && dataplane.proxiedConnections(netns) > 0) {
      await new Promise<void>((resolve) => clock.after(POLL_MS, resolve));
    }
  }

  async #release(enrollment: Enrollment, netns: NetnsHandle): Promise<void> {
    this.#checkTime();
    await this.parts.dataplane.release(netns);
    enrollment.capturedNetns = undefined;
    enrollment.annotation = null;
  }

  /** Waits for an answer, but not for long. Returns why there was none or a bad one. */
  #bounded(answer: Promise<unknown>): Promise<string | undefined> {
    const { clock } = this.parts;
    const half = Math.round((this.#tellUntil - clock.now()) / 2);
    const ms = Math.min(TELL_MS.most, Math.max(TELL_MS.least, half));
    return new Promise((resolve) => {
      const cancel = clock.after(ms, () => resolve(`no answer within ${ms} ms`));
      answer
        .then(
          () => resolve(undefined),
          (error: unknown) => resolve(messageOf(error)),
        )
        .finally(cancel);
    });
  }

  #checkTime(): void {
    if (this.parts.clock.now() >= this.#workUntil) throw new AgentError("TIME_IS_UP", "kubelet's grace period is over");
  }

  #complain(message: string, failures: ReadonlyMap<string, string>): void {
    if (failures.size === 0) return;
    const named = Object.fromEntries([...failures].slice(0, NAMED));
    this.parts.logger.error(message, { count: failures.size, pods: named });
  }
}

/** Rules redirect to the next ztunnel as to this one; without an agent of ours nobody tells eBPF of it. */
function need({ enrollment }: Captive): number {
  return enrollment.engine === "ebpf" ? 1 : 0;
}
