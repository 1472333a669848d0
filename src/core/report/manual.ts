// SPDX-License-Identifier: Apache-2.0
// Network namespaces that are captured by hand: what is asked, and what is answered.
import ipaddr from "ipaddr.js";
import * as v from "valibot";
import { canonicalIp, familyOf } from "../ip.ts";
import { ENGINE_NAMES } from "../ports/dataplane.ts";
import { about, HEAD } from "./document.ts";
import { podSchema } from "./pods.ts";

const MAX_PATH = 4096;

const path = v.pipe(v.string(), v.minLength(1), v.maxLength(MAX_PATH));
/** Of a Kubernetes object. */
const name = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, ({ received }) => `${received} is no Kubernetes name`),
);

const address = v.pipe(
  v.string(),
  v.rawTransform(({ dataset: { value }, addIssue, NEVER }) => {
    try {
      const ip = canonicalIp(value);
      const range = ipaddr.parse(ip).range();
      if (range !== "loopback" && range !== "unspecified" && range !== "multicast" && range !== "linkLocal") return ip;
      addIssue({ message: `${ip} is a ${range} address: nothing outside reaches a pod there` });
    } catch (error) {
      addIssue({ message: error instanceof Error ? error.message : String(error) });
    }
    return NEVER;
  }),
);

const addresses = v.pipe(
  v.array(address),
  v.minLength(1, "an address is needed"),
  v.check((ips) => new Set(ips.map(familyOf)).size === ips.length, "at most one address of a family"),
  v.readonly(),
);

export const workloadSchema = v.strictObject({ namespace: name, name, serviceAccount: name });

/** Body of `enroll`. */
export const manualRequestSchema = v.strictObject({
  netns: path,
  ips: addresses,
  engine: v.nullable(v.picklist(ENGINE_NAMES)),
  workload: v.nullable(workloadSchema),
});

/** Body of `unenroll`. */
export const manualReleaseSchema = v.strictObject({ netns: path, dryRun: v.optional(v.boolean(), false) });

export const enrollSchema = v.object({
  ...HEAD,
  pod: about("As it is now.", podSchema),
  phases: about("ms of each step.", v.record(v.string(), v.number())),
});

export const unenrollSchema = v.object({
  ...HEAD,
  netns: about("Its path.", v.string()),
  dryRun: about(
    "Nothing was changed: `result` is what would be. Absent: an agent that does not know the word.",
    v.optional(v.boolean()),
  ),
  result: about(
    "draining: open connections through ztunnel go on; released within the drain time. nothing: it was not captured.",
    v.picklist(["released", "draining", "nothing"]),
  ),
});

export type ManualRelease = v.InferOutput<typeof manualReleaseSchema>;
export type EnrollReport = v.InferOutput<typeof enrollSchema>;
export type UnenrollReport = v.InferOutput<typeof unenrollSchema>;
