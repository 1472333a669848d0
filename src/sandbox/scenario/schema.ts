// SPDX-License-Identifier: Apache-2.0
// The words of a scenario file. What the names in it refer to is checked in references.ts.
import { isIP } from "node:net";
import * as v from "valibot";
import { MESH_STATES } from "../../core/report/pods.ts";
import { SABOTAGES } from "./sabotage.ts";

export const MAX_PODS = 40;
export const MAX_STEPS = 200;
const MAX_WITHIN_MS = 120_000;

/** What a value must be, with the value: `not a port: 99999`. */
const must = (what: string) => (issue: { readonly input: unknown }) => `not ${what}: ${shown(issue.input)}`;

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
};

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const LABEL = /^([a-z0-9A-Z.-]{1,253}\/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/;

const name = v.pipe(v.string(must("a name")), v.regex(NAME, must("a name of Kubernetes (lower case, digits, -)")));
const podName = v.pipe(
  v.string(must("a pod")),
  v.check((text) => {
    const [namespace = "", own = "", more] = text.split("/");
    return more === undefined && NAME.test(namespace) && NAME.test(own);
  }, must("a pod (namespace/name)")),
);
const text = v.pipe(v.string(must("text")), v.maxLength(4096, "more than 4096 characters"));
const labelKey = v.pipe(v.string(must("a label")), v.regex(LABEL, must("a label's or annotation's key")));
/** YAML's own booleans and numbers are what their author forgot to quote: Kubernetes has text. */
const pairs = v.pipe(
  v.record(
    labelKey,
    v.pipe(
      v.string((issue) => `not text: ${shown(issue.input)} (put it in quotes)`),
      v.maxLength(4096),
    ),
  ),
  v.check((map) => Object.keys(map).length <= 50, "more than 50 of them"),
);
const port = v.pipe(
  v.number(must("a port")),
  v.check((number) => Number.isInteger(number) && number >= 1 && number <= 65_535, must("a port")),
);
const ip = v.pipe(
  v.string(must("an IP address")),
  v.check((address) => isIP(address) !== 0, must("an IP address")),
);
const family = v.optional(v.picklist([4, 6], must("4 or 6")), 4);

/** `500ms`, `5s`, `1m`; ms. */
const within = v.optional(
  v.pipe(
    v.string(must("a time such as 5s")),
    v.regex(/^\d{1,6}(ms|s|m)$/, must("a time such as 500ms, 5s or 1m")),
    v.transform((time) => Number.parseInt(time, 10) * (time.endsWith("ms") ? 1 : time.endsWith("s") ? 1000 : 60_000)),
    v.maxValue(MAX_WITHIN_MS, `longer than ${MAX_WITHIN_MS / 1000} s`),
  ),
);

const oneOrMore = (item: v.GenericSchema<unknown, string>) =>
  v.lazy<v.GenericSchema<unknown, readonly string[]>>((input) =>
    Array.isArray(input)
      ? v.pipe(v.array(item), v.minLength(1, "an empty list"), v.maxLength(50, "more than 50"))
      : v.pipe(
          item,
          v.transform((one) => [one]),
        ),
  );

const pod = v.strictObject({
  labels: v.optional(pairs, {}),
  annotations: v.optional(pairs, {}),
  serviceAccount: v.optional(name, "default"),
  /** As the injector leaves it. */
  sidecar: v.optional(v.boolean(must("true or false")), false),
  node: v.optional(name),
});

const service = v.strictObject({
  addresses: v.pipe(v.array(ip, must("a list of addresses")), v.minLength(1, "empty"), v.maxLength(2, "more than two")),
  /** Service port to pod port. */
  ports: v.pipe(
    v.record(v.pipe(v.string(), v.regex(/^[1-9][0-9]{0,4}$/, must("a port"))), port),
    v.check((map) => Object.keys(map).length > 0 && Object.keys(map).length <= 20, "no port, or more than 20"),
  ),
  pods: v.pipe(v.array(podName, must("a list of pods")), v.minLength(1, "empty"), v.maxLength(MAX_PODS)),
});

const title = { title: v.optional(text) };
const node = { node: v.optional(name) };

/** Agent, ztunnel or a pod; words without a slash can't be pods. */
const subject = v.pipe(
  v.string(must("agent, ztunnel or a pod")),
  v.check(
    (word) => word === "agent" || word === "ztunnel" || v.is(podName, word),
    must("agent, ztunnel or a pod (namespace/name)"),
  ),
);

const daemon = v.picklist(["agent", "ztunnel"], must("agent or ztunnel"));
/** A namespace or a pod. */
const labelled = v.pipe(
  v.string(must("a namespace or pod")),
  v.check((word) => v.is(name, word) || v.is(podName, word), must("a namespace or pod")),
);

/** What a connection is expected to come to. */
const reached = v.strictObject({
  /** The pod that answered. */
  answered: v.optional(podName),
  /** Address that the server saw: a pod's, a node's (a probe's) or itself. */
  client: v.optional(text),
  /** What it was on the way: readable, ztunnel's TLS, or nothing at all. */
  wire: v.optional(v.picklist(["clear", "hbone", "nothing"], must("clear, hbone or nothing"))),
  /** Nodes whose ztunnel took it out of the client's pod and into the server's; none: no ztunnel may have. */
  outbound: v.optional(name),
  inbound: v.optional(name),
  /** Text of the error (`ECONNREFUSED`), or `any`. Nothing may have answered. */
  refused: v.optional(text),
});

export const STEPS = {
  start: v.strictObject({ ...title, ...node, start: oneOrMore(subject), fails: v.optional(text), within }),
  stop: v.strictObject({ ...title, ...node, stop: daemon }),
  kill: v.strictObject({ ...title, ...node, kill: daemon }),
  delete: v.strictObject({ ...title, delete: podName }),
  label: v.strictObject({ ...title, label: labelled, with: pairs }),
  unlabel: v.strictObject({ ...title, unlabel: labelled, keys: oneOrMore(labelKey) }),
  annotate: v.strictObject({ ...title, annotate: podName, with: pairs }),
  sabotage: v.strictObject({
    ...title,
    sabotage: podName,
    by: v.picklist(Object.keys(SABOTAGES), must(`one of ${Object.keys(SABOTAGES).join(", ")}`)),
  }),
  connect: v.strictObject({
    ...title,
    connect: text,
    to: text,
    port: v.optional(port),
    family,
    expect: reached,
    within,
  }),
  open: v.strictObject({
    ...title,
    open: v.pipe(text, v.regex(NAME, must("a name"))),
    from: podName,
    to: podName,
    family,
  }),
  say: v.strictObject({
    ...title,
    say: text,
    expect: v.optional(v.picklist(["echo", "closed"], must("echo or closed")), "echo"),
  }),
  wait: v.strictObject({
    ...title,
    wait: oneOrMore(podName),
    for: v.picklist(MESH_STATES, must(`one of ${MESH_STATES.join(", ")}`)),
    reason: v.optional(text),
    within,
  }),
  run: v.strictObject({
    ...title,
    ...node,
    run: text,
    expect: v.optional(
      v.strictObject({
        status: v.optional(v.pipe(v.number(must("an exit status")), v.integer(), v.minValue(0), v.maxValue(255))),
        contains: v.optional(oneOrMore(text)),
        lacks: v.optional(oneOrMore(text)),
      }),
      {},
    ),
    within,
  }),
};

export type StepName = keyof typeof STEPS;
export type Step = { readonly [Name in StepName]: v.InferOutput<(typeof STEPS)[Name]> }[StepName];
export type StepOf<Name extends StepName> = v.InferOutput<(typeof STEPS)[Name]>;

/** One step is told by the one word of STEPS that it has, and checked as that. */
const step = v.lazy((input) => {
  const words = typeof input === "object" && input !== null ? Object.keys(input) : [];
  const known = words.filter((word): word is StepName => Object.hasOwn(STEPS, word));
  const [word] = known;
  if (word === undefined) return v.custom<Step>(() => false, must(`a step (one of ${Object.keys(STEPS).join(", ")})`));
  if (known.length > 1) return v.custom<Step>(() => false, `two steps in one: ${known.join(" and ")}`);
  return STEPS[word] as v.GenericSchema<unknown, Step>;
});

export const scenarioSchema = v.strictObject({
  title: text,
  engine: v.optional(v.picklist(["ebpf", "nftables", "iptables"], must("ebpf, nftables or iptables"))),
  chart: v.optional(v.picklist(["newest", "1.24"], must('"newest" or "1.24"'))),
  nodes: v.optional(v.picklist([1, 2], must("1 or 2"))),
  /** The agent's environment, beyond what the chart gives it. */
  environment: v.optional(
    v.record(
      v.pipe(v.string(), v.regex(/^AMBIENT_[A-Z0-9_]{1,60}$/, must("a setting of the agent (AMBIENT_...)"))),
      text,
    ),
    {},
  ),
  namespaces: v.pipe(
    v.record(name, pairs),
    v.check((map) => Object.keys(map).length <= 20, "more than 20 namespaces"),
  ),
  pods: v.pipe(
    v.record(podName, pod),
    v.check((map) => Object.keys(map).length <= MAX_PODS, `more than ${MAX_PODS} pods`),
  ),
  services: v.optional(
    v.pipe(
      v.record(podName, service),
      v.check((map) => Object.keys(map).length <= 20, "more than 20 services"),
    ),
    {},
  ),
  steps: v.pipe(
    v.array(step, must("a list of steps")),
    v.minLength(1, "no step"),
    v.maxLength(MAX_STEPS, `more than ${MAX_STEPS} steps`),
  ),
});

export type Scenario = v.InferOutput<typeof scenarioSchema>;
export type ScenarioPod = Scenario["pods"][string];
