// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../core/errors.ts";
import type { CaptureSpec, EngineTest, Observation } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { PlannedChange } from "../../core/ports/plan.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { VerdictCounts } from "../../core/verdicts.ts";
import type { AddressFamily, NativeBinding, SocketInfo } from "../../native/binding.ts";
import type { Engine, EngineState } from "../engine.ts";
import { type Legs, observedMode, type PlanMode } from "../netfilter/mode.ts";
import { addressObstacle } from "../netfilter/own-address.ts";
import { References } from "../netfilter/references.ts";
import { textHash } from "../netfilter/text-hash.ts";
import { verdictsOf } from "../netfilter/verdicts.ts";
import { verifyCapture } from "../netfilter/verify.ts";
import { isBehindNetfilter } from "../proxied.ts";
import { families } from "../routes.ts";
import { ALL_LETTERS } from "../sysctls.ts";
import { anyOwned, hasOwned, isUpstreams, type KernelTable, readTables } from "./kernel.ts";
import { namedDifferences, rulesDigest, stateComment } from "./observe.ts";
import { COUNTING_CHAINS, type Features, planCapture } from "./plan.ts";
import { type Reference, readReference } from "./reference.ts";
import { CAPTURE, type Ruleset, type TableKey, VARIANTS, type Variant } from "./ruleset.ts";
import { formatState, parseState, type RulesState } from "./state.ts";
import { bodyText } from "./text.ts";
import { Variants } from "./variants.ts";
import { madeTables, plannedRules, removeRules, writeRules } from "./writer.ts";

export interface IptablesOptions {
  /** Which one new pods get; undefined: what this node's host uses, if it works, else the other one. */
  readonly variant: Variant | undefined;
}

/** In a plan, for a digest that only written rules have. */
const UNREAD = "<as read back>";

interface Planned {
  readonly ruleset: Ruleset;
  readonly hash: string;
  /** Of the reference. */
  readonly key: string;
}

/** The rest counts packets of the same chains' names in other tables, where nothing is decided. */
const COUNTING_TABLES: readonly string[] = ["nat", "filter"];

/** Chains of our own in the tables of iptables; the kernel's dump is compared with a reference. */
export class IptablesEngine implements Engine {
  readonly name = "iptables";
  readonly translates = true;
  readonly #variants: Variants;
  readonly #references = new References<Reference>();
  readonly #plans = new WeakMap<CaptureSpec, Map<string, Planned>>();

  constructor(
    private readonly binding: NativeBinding,
    private readonly logger: Logger,
    options: IptablesOptions,
  ) {
    this.#variants = new Variants(binding, options.variant);
  }

  get needsSysctls(): boolean {
    return this.#variants.features(this.#variants.preferred).sysctls;
  }

  async selfTest(): Promise<EngineTest> {
    const test = await this.#variants.test();
    for (const loss of test.works ? test.losses : [])
      this.logger.warn("the iptables engine works with a loss", { loss });
    return test;
  }

  counters(netns: NetnsHandle): VerdictCounts {
    return this.verdicts(netns);
  }

  verdicts(netns: NetnsHandle): VerdictCounts {
    const tables = VARIANTS.flatMap((variant) => readTables(this.binding, netns.fd, variant));
    return verdictsOf(
      tables.filter(({ name }) => COUNTING_TABLES.includes(name)).flatMap(({ rules }) => rules),
      COUNTING_CHAINS,
    );
  }

  plan(spec: CaptureSpec): string {
    const variant = this.#variants.preferred;
    return bodyText(CAPTURE, planCapture(spec, this.#variants.features(variant), "captured", [4, 6]));
  }

  planned(netns: NetnsHandle, spec: CaptureSpec, state: EngineState): readonly PlannedChange[] {
    const variant = this.#variants.of(netns.fd);
    const { ruleset, hash, key } = this.#planned(netns, spec, "captured", "own", variant);
    const rules = this.#references.known(key)?.rules ?? UNREAD;
    const made = this.#made(readTables(this.binding, netns.fd, variant), ruleset, variant);
    return plannedRules(
      CAPTURE,
      variant,
      ruleset,
      formatState({ ...state, mode: "captured", plan: hash, rules, made }),
    );
  }

  ineligible(netns: NetnsHandle, spec: CaptureSpec): string | undefined {
    return (
      addressObstacle(this.binding, netns.fd, spec) ??
      this.#variants.obstacle(this.#variants.of(netns.fd), families(this.binding, netns.fd, spec.ipv6))
    );
  }

  present(netns: NetnsHandle): boolean {
    return anyOwned(CAPTURE, this.binding, netns.fd);
  }

  mode(netns: NetnsHandle): PlanMode | undefined {
    if (!this.present(netns)) return undefined;
    return parseState(this.#anyComment(netns) ?? "")?.mode ?? "captured";
  }

  state(netns: NetnsHandle): EngineState | undefined {
    const comment = this.#anyComment(netns);
    // Undefined too when rules of ours are there without their memory.
    return comment === undefined ? undefined : (parseState(comment) ?? { sysctls: "" });
  }

  observe(netns: NetnsHandle, spec: CaptureSpec): Observation {
    const found = VARIANTS.map((variant) => ({ variant, tables: readTables(this.binding, netns.fd, variant) })).filter(
      ({ tables }) => hasOwned(CAPTURE, tables),
    );
    const [first, second] = found;
    if (first === undefined) return { mode: "absent", engine: undefined, differences: [] };
    if (second !== undefined) return this.#differs(["rules of ours are in legacy tables and in those of iptables-nft"]);
    const { variant, tables } = first;
    const comment = stateComment(CAPTURE, tables);
    const state = comment === undefined ? undefined : parseState(comment);
    if (state === undefined) {
      return this.#differs([
        comment === undefined
          ? "the rule that says what our chains are is missing"
          : `the rule that says what our chains are is not of this version: ${JSON.stringify(comment)}`,
      ]);
    }
    const differences = this.#differences(netns, spec, variant, tables, state);
    if (differences.length > 0) return this.#differs(differences);
    return { mode: observedMode(state.mode), engine: this.name, differences: [] };
  }

  async apply(netns: NetnsHandle, spec: CaptureSpec, state: EngineState): Promise<void> {
    await this.#replace(netns, spec, "captured", state);
  }

  async verify(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await verifyCapture(this.binding, netns.fd, families(this.binding, netns.fd, spec.ipv6));
  }

  async drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await this.#end(netns, spec, "draining");
  }

  async retire(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await this.#end(netns, spec, "retiring");
  }

  keepsAlive(sockets: readonly SocketInfo[]): number {
    return sockets.filter(isBehindNetfilter).length;
  }

  async remove(netns: NetnsHandle): Promise<void> {
    for (const variant of VARIANTS) await this.#remove(netns, variant);
  }

  close(): void {
    this.#references.close();
  }

  async #end(netns: NetnsHandle, spec: CaptureSpec, mode: PlanMode): Promise<void> {
    // Where somebody took our memory away all sysctls count as ours, as they do after a kill.
    if (this.present(netns)) await this.#replace(netns, spec, mode, this.state(netns) ?? { sysctls: ALL_LETTERS });
  }

  async #replace(netns: NetnsHandle, spec: CaptureSpec, mode: PlanMode, kept: EngineState): Promise<void> {
    const { sysctls, legs = "own" } = kept;
    const variant = this.#variants.of(netns.fd);
    const { ruleset, hash, key } = this.#planned(netns, spec, mode, legs, variant);
    const reference = await this.#references.of(key, ({ fd }) =>
      readReference(CAPTURE, this.binding, fd, variant, ruleset),
    );
    const before = readTables(this.binding, netns.fd, variant);
    const made = this.#made(before, ruleset, variant);
    const state = formatState({ mode, plan: hash, rules: reference.rules, sysctls, made, legs });
    await writeRules(CAPTURE, this.binding, netns.fd, variant, ruleset, state, reference.tables);
    for (const other of VARIANTS) if (other !== variant) await this.#remove(netns, other);
    const after = this.observe(netns, spec);
    if (after.mode !== observedMode(mode)) {
      throw new AgentError(
        "CAPTURE_DIFFERS",
        `the rules are not what was just written: ${after.differences.join("; ")}`,
        "look for another program that changes iptables inside the pod",
      );
    }
  }

  /** Tables that are there because of us, once the ruleset is. */
  #made(before: readonly KernelTable[], ruleset: Ruleset, variant: Variant): readonly TableKey[] {
    const earlier = parseState(stateComment(CAPTURE, before) ?? "")?.made ?? [];
    // Those that upstream's rules alone are in go with them.
    const foreign = before.filter((table) => !isUpstreams(table));
    return madeTables(foreign, ruleset, variant, earlier);
  }

  async #remove(netns: NetnsHandle, variant: Variant): Promise<void> {
    const made = parseState(this.#comment(netns, variant) ?? "")?.made ?? [];
    await removeRules(CAPTURE, this.binding, netns.fd, variant, made);
  }

  #anyComment(netns: NetnsHandle): string | undefined {
    return VARIANTS.map((variant) => this.#comment(netns, variant)).find((found) => found !== undefined);
  }

  /** Of the state rule; one table is read. */
  #comment(netns: NetnsHandle, variant: Variant): string | undefined {
    const { family, name } = CAPTURE.stateTable;
    return stateComment(CAPTURE, readTables(this.binding, netns.fd, variant, [family], [name]));
  }

  #differences(
    netns: NetnsHandle,
    spec: CaptureSpec,
    variant: Variant,
    tables: readonly KernelTable[],
    state: RulesState,
  ): string[] {
    const { ruleset, hash, key } = this.#planned(netns, spec, state.mode, state.legs ?? "own", variant);
    const reference = this.#references.known(key);
    if (state.plan !== hash) return ["the rules were made for other settings of the pod, or by another version"];
    const differences = namedDifferences(CAPTURE, ruleset, tables, reference?.tables);
    if (differences.length === 0 && rulesDigest(CAPTURE, tables) !== (reference?.rules ?? state.rules)) {
      differences.push("a rule was changed in place");
    }
    return differences;
  }

  #planned(netns: NetnsHandle, spec: CaptureSpec, mode: PlanMode, legs: Legs, variant: Variant): Planned {
    const inNetns: readonly AddressFamily[] = families(this.binding, netns.fd, true);
    const features: Features = this.#variants.features(variant);
    const plans = this.#plans.get(spec) ?? new Map<string, Planned>();
    this.#plans.set(spec, plans);
    const name = `${variant} ${mode} ${legs} ${inNetns.join()} ${features.sysctls} ${features.ipv6}`;
    const known = plans.get(name);
    if (known !== undefined) return known;
    const ruleset = planCapture(spec, features, mode, inNetns, legs);
    const body = bodyText(CAPTURE, ruleset);
    const planned = { ruleset, hash: textHash(body), key: `${variant}\n${body}` };
    plans.set(name, planned);
    return planned;
  }

  #differs(differences: readonly string[]): Observation {
    return { mode: "differs", engine: this.name, differences };
  }
}
