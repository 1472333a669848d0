// SPDX-License-Identifier: Apache-2.0
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { RUN_FILE } from "../../core/constants.ts";
import { DEBUG_PREFIX } from "../../core/report/document.ts";
import { parseDocument } from "../../core/report/documents.ts";
import type { PodReport, PodsReport } from "../../core/report/pods.ts";
import type { Sandbox } from "../sandbox.ts";
import { until } from "../until.ts";
import type { StepOf } from "./schema.ts";
import type { Stage } from "./stage.ts";

const WITHIN_MS = 15_000;

/** Waits until the agent of each pod's node says that the pod is where it should be. */
export async function waitStep(
  stage: Stage,
  { wait, for: state, reason, within = WITHIN_MS }: StepOf<"wait">,
): Promise<string> {
  const facts: string[] = [];
  for (const name of wait) {
    const sandbox = stage.nodeOf(name);
    let seen: PodReport | undefined;
    const asWanted = async () => {
      const report = await podsOf(sandbox).catch(() => undefined);
      seen = report?.pods.find((pod) => `${pod.namespace}/${pod.name}` === name) ?? seen;
      return seen?.mesh === state && (reason === undefined || seen.reason === reason);
    };
    await until(`${name} is ${state}`, asWanted, within).catch((error: unknown) => {
      const last = seen === undefined ? "the agent does not know it" : `it is ${seen.mesh}: ${seen.detail}`;
      throw new Error(`${error instanceof Error ? error.message : String(error)}; ${last}`);
    });
    facts.push(`${name} is ${seen?.mesh}: ${seen?.detail}`);
  }
  return facts.join("; ");
}

/** The agent's own document, over its socket. */
async function podsOf(sandbox: Sandbox): Promise<PodsReport> {
  const socketPath = sandbox.node.path("run/istio-cni", RUN_FILE.debugSocket);
  const body = await new Promise<string>((resolve, reject) => {
    const outgoing = request({ socketPath, path: `${DEBUG_PREFIX}pods`, agent: false, timeout: 5000 }, (incoming) => {
      text(incoming).then(resolve, reject);
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error("no answer")));
    outgoing.on("error", reject);
    outgoing.end();
  });
  return parseDocument("pods", JSON.parse(body));
}
