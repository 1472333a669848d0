// SPDX-License-Identifier: Apache-2.0
import { POD_TABLE } from "../../core/constants.ts";
import { AgentError } from "../../core/errors.ts";
import type { CaptureSpec, EngineTest, Observation } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { PlannedChange } from "../../core/ports/plan.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { VerdictCounts } from "../../core/verdicts.ts";
import type { NativeBinding, NftTable, SocketInfo } from "../../native/binding.ts";
import type { Engine, EngineState } from "../engine.ts";
import { deleteTables } from "../netfilter/deletion.ts";
import { type Legs, observedMode, type PlanMode } from "../netfilter/mode.ts";
import { addressObstacle } from "../netfilter/own-address.ts";
import { References } from "../netfilter/references.ts";
import { tableNames } from "../netfilter/tables.ts";
import { textHash } from "../netfilter/text-hash.ts";
import { verdictsOf } from "../netfilter/verdicts.ts";
import { verifyCapture } from "../netfilter/verify.ts";
import { isBehindNetfilter } from "../proxied.ts";
import { families } from "../routes.ts";
import { nft } from "./nft.ts";
import { namedDifferences, rulesDigest } from "./observe.ts";
import { COUNTING_CHAINS, type Features, MARKED_LISTENERS, planCapture } from "./plan.ts";
import { type Reference, readReference } from "./reference.ts";
import type { Ruleset } from "./ruleset.ts";
import { selfTest } from "./selftest.ts";
import { formatState, parseState } from "./state.ts";
import { bodyText, createText, replaceText } from "./text.ts";

/** In a plan, for a digest that only a written table has. */
const UNREAD = "<as read back>";

interface Planned {
  readonly ruleset: Ruleset;
  readonly body: string;
  readonly hash: string;
}

/** One `inet` table per pod, replaced as a whole; the kernel's dump is compared with a reference. */
export class NftablesEngine implements Engine {
  readonly name = "nftables";
  readonly translates = true;
  /** Until the self-test has said otherwise. */
  #features: Features = { sysctls: true, socketMark: true };
  readonly #references = new References<Reference>();
  readonly #plans = new WeakMap<CaptureSpec, Partial<Record<`${PlanMode} ${Legs}`, Planned>>>();

  constructor(
    private readonly binding: NativeBinding,
    private readonly logger: Logger,
  ) {}

  get needsSysctls(): boolean {
    return this.#features.sysctls;
  }

  async selfTest(): Promise<EngineTest> {
    const { features, ...test } = await selfTest(this.binding);
    this.#features = features;
    for (const loss of test.losses) this.logger.warn("the nftables engine works with a loss", { loss });
    return test;
  }

  counters(netns: NetnsHandle): Readonly<Record<string, number>> {
    const counted: Record<string, number> = {};
    for (const { comment, packets } of this.#table(netns)?.rules ?? []) {
      if (comment !== "" && packets > 0n) counted[comment] = (counted[comment] ?? 0) + Number(packets);
    }
    return counted;
  }

  verdicts(netns: NetnsHandle): VerdictCounts {
    return verdictsOf(this.#table(netns)?.rules ?? [], COUNTING_CHAINS);
  }

  plan(spec: CaptureSpec): string {
    return this.#planned(spec, "captured").body;
  }

  planned(_netns: NetnsHandle, spec: CaptureSpec, state: EngineState): readonly PlannedChange[] {
    const { ruleset, body, hash } = this.#planned(spec, "captured");
    // How this kernel shows the rules is known once it has some.
    const rules = this.#references.known(body)?.rules ?? UNREAD;
    const comment = formatState({ ...state, mode: "captured", plan: hash, rules });
    return [{ what: "nft -f - in the pod", text: createText(POD_TABLE, comment, bodyText(ruleset)).trimEnd() }];
  }

  ineligible(netns: NetnsHandle, spec: CaptureSpec): string | undefined {
    return addressObstacle(this.binding, netns.fd, spec);
  }

  present(netns: NetnsHandle): boolean {
    return tableNames(this.binding, netns.fd).includes(`inet ${POD_TABLE}`);
  }

  mode(netns: NetnsHandle): PlanMode | undefined {
    const table = this.#table(netns);
    return table === undefined ? undefined : (parseState(table.comment)?.mode ?? "captured");
  }

  state(netns: NetnsHandle): EngineState | undefined {
    const table = this.#table(netns);
    return table === undefined ? undefined : (parseState(table.comment) ?? { sysctls: "" });
  }

  observe(netns: NetnsHandle, spec: CaptureSpec): Observation {
    const table = this.#table(netns);
    if (table === undefined) return { mode: "absent", engine: undefined, differences: [] };
    const state = parseState(table.comment);
    if (state === undefined) {
      return this.#differs([`the table's comment is not of this version: ${JSON.stringify(table.comment)}`]);
    }
    const planned = this.#planned(spec, state.mode, state.legs);
    const reference = this.#references.known(planned.body);
    const differences =
      state.plan === planned.hash
        ? namedDifferences(planned.ruleset, table, reference?.table)
        : ["the table was made for other settings of the pod, or by another version"];
    if (differences.length === 0 && rulesDigest(table) !== (reference?.rules ?? state.rules)) {
      differences.push("a rule was changed in place");
    }
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
    const state = this.state(netns);
    if (state !== undefined) await this.#replace(netns, spec, "draining", state);
  }

  async retire(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const state = this.state(netns);
    if (state !== undefined) await this.#replace(netns, spec, "retiring", state);
  }

  keepsAlive(sockets: readonly SocketInfo[]): number {
    return sockets.filter(isBehindNetfilter).length;
  }

  async remove(netns: NetnsHandle): Promise<void> {
    await deleteTables(this.binding, netns.fd, [{ family: "inet", table: POD_TABLE }]);
  }

  close(): void {
    this.#references.close();
  }

  async #replace(netns: NetnsHandle, spec: CaptureSpec, mode: PlanMode, state: EngineState): Promise<void> {
    const { sysctls, legs = "own" } = state;
    const { ruleset, body, hash } = this.#planned(spec, mode, legs);
    const { rules } = await this.#references.of(body, ({ fd }) => readReference(this.binding, fd, POD_TABLE, body));
    const comment = formatState({ mode, plan: hash, rules, sysctls, legs });
    const before = this.#table(netns);
    const write = before === undefined ? createText : replaceText;
    await nft(netns.fd, write(POD_TABLE, comment, bodyText(ruleset, this.#learnt(netns, before))));
    const after = this.observe(netns, spec);
    if (after.mode !== observedMode(mode)) {
      throw new AgentError(
        "CAPTURE_DIFFERS",
        `the table is not what was just written: ${after.differences.join("; ")}`,
        "look for another program that changes nf_tables inside the pod",
      );
    }
  }

  /** Learnt ports survive a replacement: their open connections are told apart by them. */
  #learnt(netns: NetnsHandle, table: NftTable | undefined): Map<string, string[]> {
    if (table === undefined || !table.sets.includes(MARKED_LISTENERS)) return new Map();
    const ports = this.binding
      .nftSet(netns.fd, "inet", POD_TABLE, MARKED_LISTENERS)
      .map(({ key }) => portOfKey(key))
      .filter((port) => port !== undefined);
    return new Map([[MARKED_LISTENERS, ports.map(String)]]);
  }

  #planned(spec: CaptureSpec, mode: PlanMode, legs: Legs = "own"): Planned {
    const name = `${mode} ${legs}` as const;
    const known = this.#plans.get(spec)?.[name];
    if (known !== undefined) return known;
    const ruleset = planCapture(spec, this.#features, mode, legs);
    const body = bodyText(ruleset);
    const planned = { ruleset, body, hash: textHash(body) };
    this.#plans.set(spec, { ...this.#plans.get(spec), [name]: planned });
    return planned;
  }

  #table(netns: NetnsHandle): NftTable | undefined {
    return this.binding.nftTable(netns.fd, "inet", POD_TABLE);
  }

  #differs(differences: readonly string[]): Observation {
    return { mode: "differs", engine: this.name, differences };
  }
}

/** The addon shows keys that are no addresses in hex: a port is two bytes, network order. */
function portOfKey(key: string): number | undefined {
  const hex = /^(?:0x)?([0-9a-f]{4})$/i.exec(key)?.[1];
  return hex === undefined ? undefined : Number.parseInt(hex, 16);
}
