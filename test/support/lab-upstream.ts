// SPDX-License-Identifier: Apache-2.0
// Pods as upstream's istio-cni leaves them: its rules (test/fixtures/upstream) and its policy routing, and
// what it does to take them away again.
import { readFileSync } from "node:fs";
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../src/core/constants.ts";
import { createNetns, type HeldNetns } from "../../src/native/netns.ts";
import { run } from "../../src/sys/exec.ts";
import { inNetns } from "./netns-lab.ts";

export const UPSTREAM_FORMS = ["iptables-legacy", "iptables-nft", "nftables"] as const;
export type UpstreamForm = (typeof UPSTREAM_FORMS)[number];

export interface UpstreamPod {
  readonly dns: boolean;
  readonly bypassInbound: boolean;
  readonly interfaces: readonly string[];
  readonly ipv6: boolean;
}

const DEFAULTS: UpstreamPod = { dns: true, bypassInbound: false, interfaces: [], ipv6: true };
const FAMILY = {
  4: { program: "iptables", loopback: "127.0.0.1/32", probe: PROBE_SNAT_IPV4 },
  6: { program: "ip6tables", loopback: "::1/128", probe: PROBE_SNAT_IPV6 },
} as const;

/** As upstream's agent enrols a pod. */
export async function enrolByUpstream(
  netns: HeldNetns,
  form: UpstreamForm,
  changes: Partial<UpstreamPod> = {},
): Promise<void> {
  const pod = { ...DEFAULTS, ...changes };
  await writeUpstreamRules(netns, form, pod);
  for (const ip of pod.ipv6 ? ["ip", "ip -6"] : ["ip"]) {
    const route = `${ip} route replace local default dev lo table 100`;
    // As upstream: a rule that is there already is no error.
    await inNetns(netns, "sh", "-c", `${route} && ${ip} rule add fwmark 0x111/0xfff pref 32764 lookup 100 || true`);
  }
}

export async function writeUpstreamRules(netns: HeldNetns, form: UpstreamForm, pod: UpstreamPod): Promise<void> {
  if (form === "nftables") {
    await run(["nft", "-f", "-"], { netns: netns.fd, stdin: textOf("nftables", pod), timeoutMs: 20_000 });
    return;
  }
  for (const family of pod.ipv6 ? ([4, 6] as const) : ([4] as const)) {
    const { program, loopback, probe } = FAMILY[family];
    const stdin = textOf("iptables", pod).replaceAll("@LOOPBACK@", loopback).replaceAll("@PROBE@", probe);
    const restore = `${program}-${form === "iptables-nft" ? "nft" : "legacy"}-restore`;
    await run([restore, "--noflush"], { netns: netns.fd, stdin, timeoutMs: 20_000 });
  }
}

/** As upstream's agent un-enrols a pod: what it has not written stays. */
export async function unenrolByUpstream(netns: HeldNetns, form: UpstreamForm): Promise<void> {
  const commands: string[] = [];
  if (form === "nftables") {
    const tables = ["nat", "mangle", "raw"].map((name) => `table inet istio-ambient-${name}`);
    commands.push(`nft '${tables.map((table) => `add ${table}; delete ${table}`).join("; ")}'`);
  } else {
    for (const { program } of Object.values(FAMILY)) {
      const iptables = `${program}-${form === "iptables-nft" ? "nft" : "legacy"} -t`;
      const chains = ["PREROUTING ISTIO_PRERT", "OUTPUT ISTIO_OUTPUT"].map((names) => names.split(" "));
      const each = ["mangle", "nat", "raw"].flatMap((table) => chains.map(([from, chain]) => ({ table, from, chain })));
      commands.push(...each.map(({ table, from, chain }) => `${iptables} ${table} -D ${from} -j ${chain}`));
      commands.push(...each.map(({ table, chain }) => `${iptables} ${table} -F ${chain}`));
      commands.push(...each.map(({ table, chain }) => `${iptables} ${table} -X ${chain}`));
    }
  }
  for (const ip of ["ip", "ip -6"]) {
    commands.push(`${ip} rule del fwmark 0x111/0xfff pref 32764 lookup 100`);
    commands.push(`${ip} route del local default dev lo table 100`);
  }
  await inNetns(netns, "sh", "-c", `{ ${commands.join("; ")}; } 2>/dev/null; true`);
}

/** What upstream's agent would compare or rewrite in a pod, table by table. */
export async function upstreamRulesIn(netns: HeldNetns): Promise<string> {
  const programs = ["iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"];
  const tables = ["nat", "mangle", "raw"];
  const commands = [
    ...programs.flatMap((name) => tables.map((table) => `${name}-save -t ${table} | grep -E '^-A|^:.* - '`)),
    ...tables.map((table) => `nft -s list table inet istio-ambient-${table}`),
    "nft list tables inet | sort",
    ...["ip", "ip -6"].map((ip) => `${ip} rule; ${ip} route show table 100`),
  ];
  const text = await inNetns(netns, "sh", "-c", `{ ${commands.join("; ")}; } 2>/dev/null; true`);
  // Who made a route says nothing about it.
  return text.replaceAll("proto static ", "");
}

/** Of a pod that upstream itself has enrolled. */
export async function rulesOfUpstream(form: UpstreamForm, changes: Partial<UpstreamPod> = {}): Promise<string> {
  const netns = createNetns();
  try {
    await enrolByUpstream(netns, form, changes);
    return await upstreamRulesIn(netns);
  } finally {
    netns.close();
  }
}

function textOf(fixture: "iptables" | "nftables", pod: UpstreamPod): string {
  const text = readFileSync(new URL(`../fixtures/upstream/${fixture}.rules`, import.meta.url), "utf8");
  // Lines for rerouted interfaces stand together and come once per interface.
  const forEach = text.replace(/(^\[V\].*\n)+/m, (lines) =>
    pod.interfaces.map((name) => lines.replaceAll("[V] ", "").replaceAll("@INTERFACE@", name)).join(""),
  );
  return forEach
    .split("\n")
    .filter((line) => !line.startsWith("#"))
    .filter((line) => pod.dns || !line.includes("[D]"))
    .filter((line) => !pod.bypassInbound || !line.includes("[I]"))
    .filter((line) => pod.ipv6 || !line.includes("[6]"))
    .map((line) => line.replace(/^(\[[DI6]\])+ /, ""))
    .join("\n");
}
