// SPDX-License-Identifier: Apache-2.0
// Pods on a branch ENI of AWS (security groups for pods): the CNI sends their traffic through a table
// of their own, also what the node itself sends them. Two rules on the host keep probes and their
// replies local (istio-cni.md 5.5). They are found again by their shape, so no agent needs to remember.
import { codeOf, messageOf } from "../core/errors.ts";
import { type Family, familyOf } from "../core/ip.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { NativeBinding, Rule, RuleSpec } from "../native/binding.ts";

const TO_POD_PRIORITY = 512;
const TABLE_MAIN = 254;
const TABLE_LOCAL = 255;

/** A pod's own table, as the AWS CNI made it. */
interface Branch {
  readonly iif: string;
  readonly table: number;
  readonly iifPriority: number;
}

/** Failures are logged, never thrown: the pod is in the mesh without them, only its probes may fail. */
export class BranchEni {
  #enabled: boolean | undefined;

  constructor(
    private readonly binding: NativeBinding,
    private readonly host: NetnsHandle,
    private readonly logger: Logger,
  ) {}

  /** Adds both rules for a pod on a branch ENI; does nothing for any other. Idempotent. */
  add(ip: string): void {
    this.#guarded("add", ip, () => {
      if (!this.#applies()) return;
      const branch = this.#branchOf(ip);
      if (branch === undefined) return;
      const [toPod, fromPod] = rulesFor(ip, branch);
      const added = this.#ensure(toPod);
      try {
        this.#ensure(fromPod);
      } catch (error) {
        if (added) this.binding.ruleDelete(this.host.fd, toPod);
        throw error;
      }
    });
  }

  /** Removes what `add` of any agent added for this address. */
  remove(ip: string): void {
    this.#guarded("remove", ip, () => {
      const family = familyOf(ip);
      for (const toPod of this.#rules(family).filter((rule) => isToPod(rule) && rule.to === ip)) {
        // The AWS CNI may have removed its own rule and route already: look for every trace of the veth.
        const iif = this.#branchOf(ip)?.iif ?? this.#vethOfTable(family, toPod.table);
        for (const rule of this.#rules(family)) {
          if (isFromPod(rule) && rule.iif === iif)
            this.#delete({ family, priority: rule.priority, table: TABLE_LOCAL, iif });
        }
        // Last: by it the other one is found.
        this.#delete({ family, priority: TO_POD_PRIORITY, table: toPod.table, to: ip, toPrefix: toPod.toPrefix });
      }
    });
  }

  /** Removes the rules of every address that is not in `owned`, adds missing ones. */
  reconcile(owned: readonly string[]): void {
    for (const family of [4, 6] as const) {
      for (const rule of this.#rules(family).filter(isToPod)) if (!owned.includes(rule.to)) this.remove(rule.to);
    }
    for (const ip of owned) this.add(ip);
  }

  /** As upstream: only where early demux is off, which the AWS CNI does for branch ENIs. Read once. */
  #applies(): boolean {
    this.#enabled ??= this.binding.sysctlGet(this.host.fd, "net/ipv4/tcp_early_demux").trim().startsWith("0");
    return this.#enabled;
  }

  /** The table that has a host route to this address through the very interface whose rule leads to it. */
  #branchOf(ip: string): Branch | undefined {
    const family = familyOf(ip);
    const links = new Map(this.binding.links(this.host.fd).map(({ index, name }) => [index, name]));
    for (const rule of this.#rules(family).filter(isPolicy)) {
      const hostRoute = this.binding
        .routes(this.host.fd, family, rule.table)
        .find(({ dst, prefix, oif }) => dst === ip && prefix === bitsOf(family) && links.get(oif) === rule.iif);
      if (hostRoute !== undefined) return { iif: rule.iif, table: rule.table, iifPriority: rule.priority };
    }
    return undefined;
  }

  /** The interface with a rule of ours just before the AWS CNI's rule into this table. */
  #vethOfTable(family: Family, table: number): string | undefined {
    const rules = this.#rules(family);
    const policy = rules.filter((rule) => isPolicy(rule) && rule.table === table).map(({ iif }) => iif);
    const ours = rules.filter(isFromPod).map(({ iif }) => iif);
    const alive = new Set(this.binding.links(this.host.fd).map(({ name }) => name));
    return ours.find((iif) => policy.includes(iif)) ?? ours.find((iif) => !alive.has(iif));
  }

  #rules(family: Family): Rule[] {
    try {
      return this.binding.rules(this.host.fd, family);
    } catch (error) {
      if (["EAFNOSUPPORT", "EOPNOTSUPP"].includes(codeOf(error))) return [];
      throw error;
    }
  }

  /** Returns false when an equal rule was there. */
  #ensure(rule: RuleSpec): boolean {
    try {
      this.binding.ruleAdd(this.host.fd, rule);
      return true;
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
      return false;
    }
  }

  #delete(rule: RuleSpec): void {
    try {
      this.binding.ruleDelete(this.host.fd, rule);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }

  #guarded(what: string, ip: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.logger.warn("rules of a branch ENI pod", { what, ip, reason: messageOf(error) });
    }
  }
}

function rulesFor(ip: string, { iif, table, iifPriority }: Branch): [RuleSpec, RuleSpec] {
  const family = familyOf(ip);
  return [
    { family, priority: TO_POD_PRIORITY, table, to: ip, toPrefix: bitsOf(family) },
    { family, priority: Math.max(0, iifPriority - 1), table: TABLE_LOCAL, iif },
  ];
}

function isPolicy(rule: Rule): boolean {
  return rule.iif !== "" && rule.table > 0 && rule.table !== TABLE_MAIN && rule.table !== TABLE_LOCAL;
}

/** The AWS CNI's own rules of this priority lead to the main table. */
function isToPod(rule: Rule): boolean {
  return (
    rule.priority === TO_POD_PRIORITY &&
    rule.to !== "" &&
    rule.iif === "" &&
    rule.toPrefix === bitsOf(rule.family) &&
    rule.table > 0 &&
    rule.table !== TABLE_MAIN &&
    rule.table !== TABLE_LOCAL
  );
}

function isFromPod(rule: Rule): boolean {
  return rule.iif !== "" && rule.to === "" && rule.table === TABLE_LOCAL;
}

function bitsOf(family: Family): number {
  return family === 4 ? 32 : 128;
}
