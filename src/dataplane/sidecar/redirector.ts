// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../../core/errors.ts";
import type { EngineName, KernelFact } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Proof } from "../../core/ports/proof.ts";
import type { RedirectedPod, RedirectionObservation, SidecarDataplane } from "../../core/ports/sidecar.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { Redirection } from "../../core/redirection.ts";
import { runSteps, type Step } from "../../core/transaction.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { Variant } from "../iptables/ruleset.ts";
import { variantOrder } from "../iptables/variants.ts";
import { redirectionFacts } from "./examine.ts";
import { foreignRedirection } from "./foreign.ts";
import { IptablesRedirection } from "./iptables.ts";
import { NftablesRedirection } from "./nftables.ts";
import { proveRedirection } from "./proof.ts";
import { addRouting, missingRouting, removeRouting } from "./routing.ts";
import { type InterceptionMode, type Sample, selfTest } from "./selftest.ts";
import { verifyRedirection } from "./verify.ts";
import { OTHER_SETTINGS, OTHER_VERSION, type RedirectionWriter } from "./writer.ts";

export interface RedirectorOptions {
  readonly binding: NativeBinding;
  /** The node's netns. */
  readonly host: NetnsHandle;
  readonly logger: Logger;
  /** The node's choice for ambient pods; eBPF has nothing for sidecars. */
  readonly engine: "auto" | EngineName;
  /** Which iptables; undefined: what the host uses, if it works, else the other one. */
  readonly variant: Variant | undefined;
  /** Redirections for the self-test. */
  readonly sample: Sample;
}

interface Found {
  readonly writer: RedirectionWriter;
  readonly differences: readonly string[];
}

/** Redirects sidecar pods with the first of nftables and iptables that is proved to work here. */
export class SidecarRedirector implements SidecarDataplane {
  /** All that may have written something in a pod. */
  readonly #writers: readonly RedirectionWriter[];
  /** Those that write, best first. */
  readonly #candidates: readonly RedirectionWriter[];
  readonly #tests = new Map<RedirectionWriter, Map<InterceptionMode, Promise<string | undefined>>>();

  constructor(private readonly options: RedirectorOptions) {
    const { binding, engine, variant } = options;
    const order =
      variant === undefined ? variantOrder(binding) : ([variant, variant === "nft" ? "legacy" : "nft"] as const);
    const nftables = new NftablesRedirection(binding);
    const iptables = order.map((one) => new IptablesRedirection(binding, one));
    this.#writers = [nftables, ...iptables];
    this.#candidates = [
      ...(engine === "iptables" ? [] : [nftables]),
      ...(variant === undefined ? iptables : iptables.slice(0, 1)),
    ];
  }

  async warm(): Promise<void> {
    for (const writer of this.#candidates) if ((await this.#tested(writer, "REDIRECT")) === undefined) return;
  }

  observe(netns: NetnsHandle, redirection: Redirection): RedirectionObservation {
    const [first, second] = this.#found(netns, redirection);
    if (first === undefined) {
      const engine = foreignRedirection(this.options.binding, netns);
      return { mode: engine === undefined ? "absent" : "foreign", engine, differences: [] };
    }
    const differences = [
      ...first.differences,
      ...(second === undefined ? [] : [`there are rules of ours by ${first.writer.name} and by ${second.writer.name}`]),
      ...missingRouting(this.options.binding, netns.fd, redirection),
    ];
    const { engine } = first.writer;
    if (differences.length === 0) return { mode: "redirected", engine, differences };
    const outdated = differences.some((text) => text.includes(OTHER_SETTINGS) || text.includes(OTHER_VERSION));
    return { mode: "differs", engine, differences, outdated };
  }

  async redirect(netns: NetnsHandle, redirection: Redirection, pod: string): Promise<RedirectionObservation> {
    const before = this.observe(netns, redirection);
    if (before.mode === "redirected" || before.mode === "foreign") return before;
    const mode = redirection.deliver === undefined ? "REDIRECT" : "TPROXY";
    const reasons: string[] = [];
    const broken: RedirectionWriter[] = [];
    let failure: unknown;
    for (const writer of this.#inOrder(netns, redirection, before.mode === "absent")) {
      try {
        const reason = await this.#tested(writer, mode);
        if (reason !== undefined) {
          broken.push(writer);
          throw new AgentError("ENGINE_BROKEN", `it does not work on this node: ${reason}`);
        }
        await this.#redirectWith(writer, netns, redirection, before.mode === "absent");
        return { mode: "redirected", engine: writer.engine, differences: [] };
      } catch (error) {
        failure = error;
        reasons.push(`${writer.name}: ${messageOf(error)}`);
        this.options.logger.warn("a sidecar's redirection can't be written this way", {
          pod,
          writer: writer.name,
          reason: messageOf(error),
        });
      }
    }
    // What a test failed of may have been the moment's: the runtime asks again.
    for (const writer of broken) this.#tests.get(writer)?.delete(mode);
    throw new AgentError(
      "NO_ENGINE",
      `the redirection into the sidecar of ${pod} can't be written (${reasons.join("; ")})`,
      "the node needs nf_tables with NAT, or iptables, and their programs in the agent's image",
      { cause: failure },
    );
  }

  examine(netns: NetnsHandle, pod: RedirectedPod): readonly KernelFact[] {
    return redirectionFacts(this.options.binding, netns, pod, this.observe(netns, pod.redirection));
  }

  prove(netns: NetnsHandle, pod: RedirectedPod): Promise<readonly Proof[]> {
    const { binding, host } = this.options;
    const foreign = this.observe(netns, pod.redirection).mode === "foreign";
    return proveRedirection(binding, netns, host, pod, foreign);
  }

  async remove(netns: NetnsHandle, redirection: Redirection): Promise<void> {
    for (const writer of this.#writers) await writer.remove(netns);
    removeRouting(this.options.binding, netns.fd, redirection);
  }

  /** Gives back what the process holds; pods stay redirected. */
  close(): void {
    for (const writer of this.#writers) writer.close();
  }

  #found(netns: NetnsHandle, redirection: Redirection): Found[] {
    return this.#writers.flatMap((writer) => {
      const differences = writer.differences(netns, redirection);
      return differences === undefined ? [] : [{ writer, differences }];
    });
  }

  /** The one whose rules are in the netns goes first: a pod never has rules of two. */
  #inOrder(netns: NetnsHandle, redirection: Redirection, fresh: boolean): readonly RedirectionWriter[] {
    if (fresh) return this.#candidates;
    const there = this.#found(netns, redirection).map(({ writer }) => writer);
    const isThere = (writer: RedirectionWriter) => there.includes(writer);
    return [...this.#candidates.filter(isThere), ...this.#candidates.filter((writer) => !isThere(writer))];
  }

  /** Each writer and mode is tested when the first pod needs it: most nodes have no sidecars. */
  #tested(writer: RedirectionWriter, mode: InterceptionMode): Promise<string | undefined> {
    const tests = this.#tests.get(writer) ?? new Map<InterceptionMode, Promise<string | undefined>>();
    this.#tests.set(writer, tests);
    const test = tests.get(mode) ?? selfTest(this.options.binding, writer, mode, this.options.sample);
    tests.set(mode, test);
    return test;
  }

  async #redirectWith(
    writer: RedirectionWriter,
    netns: NetnsHandle,
    redirection: Redirection,
    fresh: boolean,
  ): Promise<void> {
    const { binding, logger } = this.options;
    let removeAdded: () => void = () => undefined;
    // What was there before, right or wrong, keeps the pod's traffic from leaving as it likes.
    const ifFresh = (undo: () => Promise<void> | void) => (fresh ? undo() : undefined);
    const steps: Step[] = [
      {
        name: "add routes",
        apply: () => {
          removeAdded = addRouting(binding, netns.fd, redirection);
        },
        undo: () => ifFresh(removeAdded),
      },
      {
        name: "write rules",
        apply: async () => {
          await writer.write(netns, redirection);
          for (const other of fresh ? [] : this.#writers) if (other !== writer) await other.remove(netns);
        },
        undo: () => ifFresh(() => writer.remove(netns)),
      },
      {
        name: "verify",
        apply: async () => {
          const { mode, differences } = this.observe(netns, redirection);
          if (mode !== "redirected") {
            throw new AgentError(
              "REDIRECTION_DIFFERS",
              `the rules are not what was just written: ${differences.join("; ")}`,
              "look for another program that changes the firewall inside the pod",
            );
          }
          await verifyRedirection(binding, netns.fd, redirection);
        },
        undo: () => undefined,
      },
    ];
    await runSteps(steps, (step, reason) => logger.error("undoing a failed redirection", { step, reason }));
  }
}
