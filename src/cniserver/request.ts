// SPDX-License-Identifier: Apache-2.0
// The two bodies that plugins send: ours (cni/README.md) and that of upstream's istio-cni.
import * as v from "valibot";
import { AgentError } from "../core/errors.ts";
import { canonicalIp } from "../core/ip.ts";
import type { CniPodRequest } from "../core/ports/cni.ts";

const IPS_MAX = 64;
const SHOWN = 120;

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}...` : text;
};

const text = v.string((issue) => `must be a string, not ${shown(issue.input)}`);

const matching = (pattern: RegExp, maxLength: number, what: string) =>
  v.pipe(
    text,
    v.check(
      (value) => value.length <= maxLength && pattern.test(value),
      (issue) => `${shown(issue.input)} is not ${what}`,
    ),
  );

const LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?";
const podNamespace = matching(new RegExp(`^${LABEL}$`), 63, "the name of a namespace");
const podName = matching(new RegExp(`^${LABEL}(\\.${LABEL})*$`), 253, "the name of a pod");
const ID = { pattern: /^[A-Za-z0-9][A-Za-z0-9_.-]*$/, maxLength: 256 } as const;
const id = matching(ID.pattern, ID.maxLength, "an id");
const uid = v.union(
  [
    v.pipe(
      v.literal(""),
      v.transform((): undefined => undefined),
    ),
    id,
  ],
  (issue) => {
    return `${shown(issue.input)} is not a UID`;
  },
);
const ifName = matching(/^(?!\.{1,2}$)[!-.0-9;-~]+$/, 15, "the name of an interface");
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get into a path
const netns = matching(/^(?!.*\/\.{1,2}(\/|$))\/[^\u0000-\u001f\u007f]*$/, 4095, "an absolute path without steps back");
const ip = v.pipe(
  text,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    try {
      return canonicalIp(dataset.value);
    } catch {
      addIssue({ message: `${shown(dataset.value)} is not an IP address` });
      return NEVER;
    }
  }),
);
const atMost = <T>() =>
  v.check<T[], (issue: v.CheckIssue<T[]>) => string>(
    (list) => list.length <= IPS_MAX,
    (issue) => `holds ${issue.input.length} addresses, more than ${IPS_MAX}`,
  );
const listOf = "must be an array";

const OWN = v.object({
  containerId: id,
  netns,
  ifName,
  podNamespace,
  podName,
  podUid: v.optional(uid),
  ips: v.pipe(v.array(ip, listOf), atMost<string>()),
});

// Go's encoding: capitalised names, an absent slice is null; Mask (base64) and Gateway say nothing to us.
const UPSTREAM_IP = v.object({ Address: v.object({ IP: ip }) });
const UPSTREAM = v.object({
  Netns: netns,
  PodNamespace: podNamespace,
  PodName: podName,
  IPs: v.pipe(v.nullish(v.array(UPSTREAM_IP, listOf), []), atMost<v.InferOutput<typeof UPSTREAM_IP>>()),
});

function parse<S extends v.GenericSchema>(schema: S, body: string): v.InferOutput<S> {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    throw new AgentError("BAD_REQUEST", `the body is not JSON: ${shown(body)}`);
  }
  const result = v.safeParse(schema, json, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const field = v.getDotPath(issue);
  const missing = field !== null && issue.input === undefined;
  throw new AgentError(
    "BAD_REQUEST",
    missing ? `${field} is missing` : field === null ? `the body is not an object` : `${field}: ${issue.message}`,
  );
}

export function isContainerId(value: string): boolean {
  return value.length <= ID.maxLength && ID.pattern.test(value);
}

/** Body of POST /v1/add and /v1/check. @throws AgentError BAD_REQUEST naming the field */
export function parseOwnRequest(body: string): CniPodRequest {
  const parsed = parse(OWN, body);
  return { ...parsed, podUid: parsed.podUid };
}

/** Body of upstream's POST /cmdadd. @throws AgentError BAD_REQUEST naming the field */
export function parseUpstreamRequest(body: string): CniPodRequest {
  const { Netns, PodNamespace, PodName, IPs } = parse(UPSTREAM, body);
  return {
    containerId: "",
    netns: Netns,
    ifName: "",
    podNamespace: PodNamespace,
    podName: PodName,
    podUid: undefined,
    ips: IPs.map(({ Address }) => Address.IP),
  };
}
