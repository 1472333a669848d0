// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list, verdictSchema } from "./document.ts";

export const componentSchema = v.object({
  name: v.picklist(["cni plugin", "kubernetes", "ztunnel", "dataplane", "pods", "drift"]),
  verdict: verdictSchema,
  /** One line for people. */
  text: v.string(),
});

const collectionSchema = v.object({
  resource: v.string(),
  synced: v.boolean(),
  size: v.number(),
  resourceVersion: v.nullable(v.string()),
  /** null: no watch is open. */
  watchAgeSeconds: v.nullable(v.number()),
  relists: v.number(),
});

const connectionSchema = v.object({
  id: v.number(),
  pid: v.number(),
  /** These three are missing in reports of older agents. */
  uid: v.optional(v.number()),
  protocol: v.optional(v.number()),
  seconds: v.optional(v.number()),
  ready: v.boolean(),
  acked: v.number(),
});

const troubleSchema = v.object({ reason: v.string(), detail: v.string(), secondsAgo: v.number() });

export const statusSchema = v.object({
  ...HEAD,
  /** Of the agent; null when there is none. */
  version: v.nullable(v.string()),
  kernel: v.string(),
  /** Of the agent. */
  upSeconds: v.nullable(v.number()),
  components: list(componentSchema),
  /** Pods by state (`mesh` of a pod). */
  pods: v.record(v.string(), v.number()),
  /** The agent's caches of the cluster; null when nobody watches it. */
  kubernetes: v.nullable(list(collectionSchema)),
  /** null: only the agent knows. */
  ztunnels: v.nullable(list(connectionSchema)),
  /** What last went wrong at ztunnel's socket; null: nothing. Missing where it is not known. */
  ztunnelTrouble: v.optional(v.nullable(troubleSchema)),
  dataplane: v.object({
    /** What new pods get. */
    engine: v.nullable(v.string()),
    fallbacks: list(v.string()),
  }),
  /** What other programs had changed and the agent has put right since it started; null: only the agent counts. */
  drift: v.optional(
    v.nullable(
      v.object({
        repaired: v.number(),
        /** The same by kind of thing. */
        kinds: v.record(v.string(), v.number()),
        /** What is missing and can't be put right, with the reason; older reports don't say. */
        broken: v.optional(v.record(v.string(), v.string())),
        last: v.nullable(
          v.object({
            /** RFC 3339. */
            at: v.string(),
            what: v.string(),
            /** null: it was the node's. */
            pod: v.nullable(v.string()),
            detail: v.string(),
          }),
        ),
      }),
    ),
    null,
  ),
  /** What to look at: the object's name, a stable code and a sentence. */
  problems: list(
    v.object({
      object: v.string(),
      code: v.string(),
      message: v.string(),
      attempts: v.number(),
      nextTryMs: v.nullable(v.number()),
    }),
  ),
});

export type StatusReport = v.InferOutput<typeof statusSchema>;
export type ComponentReport = v.InferOutput<typeof componentSchema>;
export type StatusProblem = StatusReport["problems"][number];
