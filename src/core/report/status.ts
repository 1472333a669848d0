// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list, verdictSchema } from "./document.ts";

export const componentSchema = v.object({
  name: about(
    "A part of the node's mesh.",
    v.picklist(["cni plugin", "kubernetes", "ztunnel", "dataplane", "pods", "drift"]),
  ),
  verdict: about("unknown: this source can't tell.", verdictSchema),
  text: about("One line for people.", v.string()),
});

const collectionSchema = v.object({
  resource: about("`pods` or `namespaces`.", v.string()),
  synced: about("One complete list was read.", v.boolean()),
  size: about("How many are known.", v.number()),
  resourceVersion: about("Of the newest change that was seen.", v.nullable(v.string())),
  watchAgeSeconds: about("null: no watch is open.", v.nullable(v.number())),
  relists: about("Times that everything had to be listed again.", v.number()),
});

const connectionSchema = v.object({
  id: about("Counted from the start of the agent.", v.number()),
  pid: about("Of the peer in the agent's pid namespace; 0: it lives in another one.", v.number()),
  uid: about("Of the peer's process. Reports of older agents have none of these three.", v.optional(v.number())),
  protocol: about("Version of ZDS in its hello; 0 before that.", v.optional(v.number())),
  seconds: about("Since it connected.", v.optional(v.number())),
  ready: about("It has its snapshot of the node's pods.", v.boolean()),
  acked: about("Pods that it has acknowledged.", v.number()),
});

const troubleSchema = v.object({
  reason: about("Stable word, as in `ambient_cni_zds_disconnects_total`, or `refused`.", v.string()),
  detail: about("A sentence.", v.string()),
  secondsAgo: about("When it happened.", v.number()),
});

export const statusSchema = v.object({
  ...HEAD,
  version: about("Of the agent; null when there is none.", v.nullable(v.string())),
  kernel: about("Release of the kernel.", v.string()),
  upSeconds: about("Of the agent, in seconds; null when there is none.", v.nullable(v.number())),
  components: about("A verdict for each part, in the order of the table.", list(componentSchema)),
  pods: about("Pods by state (`mesh` of a pod).", v.record(v.string(), v.number())),
  kubernetes: about(
    "The agent's caches of the cluster; null when nobody watches it.",
    v.nullable(list(collectionSchema)),
  ),
  ztunnels: about("null: only the agent knows.", v.nullable(list(connectionSchema))),
  ztunnelTrouble: about(
    "What last went wrong at ztunnel's socket; null: nothing. Missing where it is not known.",
    v.optional(v.nullable(troubleSchema)),
  ),
  ztunnelStuck: about(
    "Signs that a ztunnel does not answer, which have lasted for some seconds. Missing where it is not known.",
    v.optional(
      list(
        v.object({
          sign: about("process: it is stopped; listener: connections wait at it, and none is accepted.", v.string()),
          detail: about("A sentence.", v.string()),
          seconds: about("For how long it has been seen.", v.number()),
        }),
      ),
    ),
  ),
  dataplane: about(
    "By what pods are captured.",
    v.object({
      engine: about("What new pods get.", v.nullable(v.string())),
      fallbacks: about("Engines that work here too, best first.", list(v.string())),
    }),
  ),
  drift: about(
    "What other programs had changed and the agent has put right since it started; null: only the agent counts.",
    v.optional(
      v.nullable(
        v.object({
          repaired: about("How many repairs.", v.number()),
          kinds: about("The same by kind of thing.", v.record(v.string(), v.number())),
          broken: about(
            "What is missing and can't be put right, with the reason; older reports don't say.",
            v.optional(v.record(v.string(), v.string())),
          ),
          last: about(
            "The newest repair; null: none.",
            v.nullable(
              v.object({
                at: about("RFC 3339.", v.string()),
                what: about("Kind of thing, as in `kinds`.", v.string()),
                pod: about("null: it was the node's.", v.nullable(v.string())),
                detail: about("What was found, a sentence.", v.string()),
              }),
            ),
          ),
        }),
      ),
      null,
    ),
  ),
  problems: about(
    "What to look at.",
    list(
      v.object({
        object: about("The object's name: a pod, or a part of the node.", v.string()),
        code: about("Stable.", v.string()),
        message: about("A sentence.", v.string()),
        attempts: about("Failed ones in a row.", v.number()),
        nextTryMs: about(
          "ms until the next one; null while one is under way or waits for an event.",
          v.nullable(v.number()),
        ),
      }),
    ),
  ),
});

export type StatusReport = v.InferOutput<typeof statusSchema>;
export type ComponentReport = v.InferOutput<typeof componentSchema>;
export type StatusProblem = StatusReport["problems"][number];
