// SPDX-License-Identifier: Apache-2.0
// A redirection as chains of iptables, under upstream's names: people and tools look for them. Pure.
import { SIDECAR_PORT } from "../../core/constants.ts";
import type { Family } from "../../core/ip.ts";
import {
  REDIRECTION_HOOKS,
  type Redirection,
  type RedirectionAction,
  type RedirectionHook,
  type RedirectionMatch,
  type RedirectionRule,
} from "../../core/redirection.ts";
import {
  type BuiltIn,
  type Chain,
  type Owner,
  type Rule,
  type Ruleset,
  TABLE_NAMES,
  type TableName,
} from "../iptables/ruleset.ts";
import { hex } from "../netfilter/numbers.ts";
import { cidrs, interfaceName } from "../netfilter/values.ts";

const CHAIN = {
  inbound: "ISTIO_INBOUND",
  output: "ISTIO_OUTPUT",
  dns: "ISTIO_OUTPUT_DNS",
  redirect: "ISTIO_REDIRECT",
  inRedirect: "ISTIO_IN_REDIRECT",
  divert: "ISTIO_DIVERT",
  tproxy: "ISTIO_TPROXY",
  drop: "ISTIO_DROP",
} as const;

/** Upstream has no such chain, so its presence tells our rules from upstream's. */
const STATE_CHAIN = "ISTIO_STATE";
const NAMES: ReadonlySet<string> = new Set([...Object.values(CHAIN), STATE_CHAIN]);

/** Chains of sidecar pods. */
export const SIDECAR: Owner = {
  owns: (chain) => NAMES.has(chain),
  stateChain: STATE_CHAIN,
  // The one table that every redirection has.
  stateTable: { family: 4, name: "nat" },
  jumpComment: "ambient-cni sidecar",
};

const PLACE: Readonly<Record<RedirectionHook, { table: TableName; from: BuiltIn; chain: string }>> = {
  "raw-prerouting": { table: "raw", from: "PREROUTING", chain: CHAIN.inbound },
  "raw-output": { table: "raw", from: "OUTPUT", chain: CHAIN.dns },
  "mangle-prerouting": { table: "mangle", from: "PREROUTING", chain: CHAIN.inbound },
  "mangle-output": { table: "mangle", from: "OUTPUT", chain: CHAIN.output },
  "nat-prerouting": { table: "nat", from: "PREROUTING", chain: CHAIN.inbound },
  "nat-output": { table: "nat", from: "OUTPUT", chain: CHAIN.output },
};

const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;

interface Step {
  readonly rules: readonly Rule[];
  /** Chains to which they lead. */
  readonly targets: readonly Chain[];
}

/** @throws AgentError BAD_INTERFACE_NAME | BAD_ADDRESS that names the value. */
export function iptablesRules({ hooks, families }: Redirection): Ruleset {
  return families.flatMap((family) =>
    TABLE_NAMES.flatMap((name) => {
      const chains: Chain[] = [];
      const targets = new Map<string, Chain>();
      for (const hook of REDIRECTION_HOOKS) {
        const { table, from, chain } = PLACE[hook];
        if (table !== name || hooks[hook].length === 0) continue;
        const steps = hooks[hook]
          .filter(({ match }) => match.family === undefined || match.family === family)
          .map((rule) => stepOf(rule, family));
        chains.push({ name: chain, from, rules: steps.flatMap(({ rules }) => rules) });
        for (const target of steps.flatMap((step) => step.targets)) targets.set(target.name, target);
      }
      return chains.length === 0 ? [] : [{ family, name, chains: [...targets.values(), ...chains] }];
    }),
  );
}

/** iptables has no lists: a rule over one becomes one for each value. */
function stepOf({ name, match, action }: RedirectionRule, family: Family): Step {
  const { jumps, target } = actionOf(action, family);
  const alternatives = optionsOf(match, family);
  const rules = alternatives.flatMap(({ suffix, options }) =>
    jumps.map(([what, jump]) => ({ name: `${name}${suffix}${what}`, text: [...options, jump].join(" ") })),
  );
  return { rules, targets: target === undefined ? [] : [target] };
}

interface Options {
  readonly suffix: string;
  readonly options: readonly string[];
}

function optionsOf(match: RedirectionMatch, family: Family): readonly Options[] {
  const { protocol } = match;
  let all: readonly Options[] = [{ suffix: "", options: [] }];
  const add = (option: string | undefined) => {
    if (option !== undefined) all = all.map((one) => ({ ...one, options: [...one.options, option] }));
  };
  const addEach = <T extends string | number>(values: readonly T[] | undefined, option: (value: T) => string) => {
    if (values === undefined) return;
    const many = new Set(values).size > 1;
    all = all.flatMap(({ suffix, options }) =>
      [...new Set(values)].map((value) => ({
        suffix: many ? `${suffix}-${value}` : suffix,
        options: [...options, option(value)],
      })),
    );
  };
  const given = <T>(value: T | undefined, option: (value: T) => string) =>
    value === undefined ? undefined : option(value);
  addEach(match.from, (name) => `-i ${interfaceName(name)}`);
  addEach(match.to, (name) => `-o ${interfaceName(name)}`);
  add(given(match.source, (cidr) => `-s ${network(cidr, family)}`));
  addEach(match.destinations && cidrs(match.destinations, family), (cidr) => `-d ${cidr}`);
  add(given(match.notDestination, (cidr) => `! -d ${network(cidr, family)}`));
  add(given(protocol, (word) => `-p ${word}`));
  addEach(match.ports, (port) => `-m ${protocol} --dport ${port}`);
  add(given(match.notPorts, (ports) => notPorts(protocol, ports)));
  add(given(match.sourcePort, (port) => `-m ${protocol} --sport ${port}`));
  add(
    given(match.state, (state) => `-m conntrack --ctstate ${state === "invalid" ? "INVALID" : "RELATED,ESTABLISHED"}`),
  );
  add(given(match.uid, (uid) => `-m owner --uid-owner ${uid}`));
  add(given(match.notUid, (uid) => `-m owner ! --uid-owner ${uid}`));
  add(given(match.gid, (gid) => `-m owner --gid-owner ${gid}`));
  for (const gid of match.notGids ?? []) add(`-m owner ! --gid-owner ${gid}`);
  add(given(match.mark, (mark) => `-m mark --mark ${hex(mark)}`));
  add(given(match.notMark, (mark) => `-m mark ! --mark ${hex(mark)}`));
  add(given(match.connectionMark, (mark) => `-m connmark --mark ${hex(mark)}`));
  return all;
}

function notPorts(protocol: string | undefined, ports: readonly number[]): string {
  const [only, ...others] = ports;
  return others.length === 0 ? `-m ${protocol} ! --dport ${only}` : `-m multiport ! --dports ${ports.join(",")}`;
}

/** The very CIDR, checked: `cidrs` would drop one of the other family. */
function network(cidr: string, family: Family): string {
  return cidrs([cidr], family).join();
}

interface ActionText {
  /** What makes the names of several rules for one action differ, and their targets. */
  readonly jumps: readonly (readonly [what: string, jump: string])[];
  readonly target?: Chain;
}

function actionOf(action: RedirectionAction, family: Family): ActionText {
  switch (action.kind) {
    case "leave":
      return { jumps: [["", "-j RETURN"]] };
    case "drop":
      return to(CHAIN.drop, [{ name: "drop", text: "-j DROP" }]);
    case "redirect":
      return redirectTo(action.port);
    case "tproxy": {
      const listener =
        action.port === undefined ? `--on-port 0 --on-ip ${LOOPBACK[family]}` : `--on-port ${action.port}`;
      const jump = `-j TPROXY ${listener} --tproxy-mark ${hex(action.mark)}/0xffffffff`;
      if (action.port === undefined) return { jumps: [["", jump]] };
      return to(CHAIN.tproxy, [{ name: "tproxy", text: `-p tcp ${jump}` }]);
    }
    case "divert":
      return to(CHAIN.divert, [
        { name: "mark", text: markWith(action.mark) },
        { name: "divert", text: "-j ACCEPT" },
      ]);
    case "remember-mark":
      return {
        jumps: [
          ["", "-j CONNMARK --save-mark"],
          ["-left", "-j RETURN"],
        ],
      };
    case "recall-mark":
      return {
        jumps: [
          ["", "-j CONNMARK --restore-mark"],
          ["-left", "-j RETURN"],
        ],
      };
    case "mark":
      return { jumps: [["", markWith(action.mark)]] };
    case "zone":
      // The first zone stays: the target passes over packets that have one.
      return { jumps: [["", `-j CT --zone ${action.zone}`]] };
  }
}

function redirectTo(port: number | undefined): ActionText {
  if (port === undefined) return { jumps: [["", "-j REDIRECT"]] };
  const text = (protocol: string) => `-p ${protocol} -j REDIRECT --to-ports ${port}`;
  const chains: Readonly<Record<number, string>> = {
    [SIDECAR_PORT.outbound]: CHAIN.redirect,
    [SIDECAR_PORT.inbound]: CHAIN.inRedirect,
    [SIDECAR_PORT.dns]: CHAIN.dns,
  };
  const chain = chains[port];
  if (chain === undefined) throw new Error(`no chain of upstream's redirects to port ${port}`);
  const protocols = port === SIDECAR_PORT.dns ? ["tcp", "udp"] : ["tcp"];
  return to(
    chain,
    protocols.map((protocol) => ({ name: `to-${port}-${protocol}`, text: text(protocol) })),
  );
}

function to(name: string, rules: readonly Rule[]): ActionText {
  return { jumps: [["", `-j ${name}`]], target: { name, from: undefined, rules } };
}

function markWith(mark: number): string {
  return `-j MARK --set-xmark ${hex(mark)}/0xffffffff`;
}
