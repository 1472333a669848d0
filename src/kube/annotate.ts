// SPDX-License-Identifier: Apache-2.0
import { backoffMs } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { REDIRECTION_ANNOTATION } from "../core/constants.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { podKey } from "../core/pod.ts";
import type { PodRef, RedirectionState } from "../core/ports/cluster.ts";
import type { KubeClient } from "./client.ts";
import { delay } from "./delay.ts";
import { recordOf, textOf } from "./json.ts";
import { KubeError } from "./kube-error.ts";
import { podPath } from "./paths.ts";

const DEADLINE_MS = 20_000;
const CALL_TIMEOUT_MS = 10_000;
const BACKOFF = { initialMs: 200, maxMs: 5_000, jitter: 0.2 } as const;
/** Codes of failures in which no answer came, so that the patch may or may not have been made. */
const NO_ANSWER: ReadonlySet<string> = new Set(["KUBE_UNREACHABLE", "KUBE_TIMEOUT", "KUBE_MALFORMED"]);

export interface AnnotatorOptions {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly random: () => number;
  /** Aborted by `stop`: ends waits between tries. */
  readonly signal: AbortSignal;
}

/** The request that makes the annotation say `value`, or nothing. Pure. */
export function annotationPatch(pod: PodRef, value: RedirectionState | null) {
  return {
    method: "PATCH",
    path: podPath(pod.namespace, pod.name, "status"),
    contentType: "application/merge-patch+json",
    body: { metadata: { uid: pod.uid, annotations: { [REDIRECTION_ANNOTATION]: value } } },
  } as const;
}

/** Writes `ambient.istio.io/redirection` of pods, through pods/status as istio-cni does. */
export class Annotator {
  readonly #options: AnnotatorOptions;

  constructor(options: AnnotatorOptions) {
    this.#options = options;
  }

  /**
   * A merge patch that carries the uid as precondition: without it, a late removal would hit a
   * StatefulSet's new pod of the same name. Tries again for up to 20 s while the server is busy.
   * @throws AgentError KUBE_* of the last try.
   */
  async annotate(pod: PodRef, value: RedirectionState | null): Promise<"patched" | "gone"> {
    const { clock, random, signal } = this.#options;
    const deadline = clock.now() + DEADLINE_MS;
    for (let attempt = 0; ; attempt++) {
      let failure: unknown;
      try {
        const outcome = await this.#patch(pod, value, Math.min(CALL_TIMEOUT_MS, deadline - clock.now()));
        if (outcome !== "conflict") return outcome;
        failure = new AgentError("KUBE_CONFLICT", `the pod ${podKey(pod)} kept changing while it was annotated`);
      } catch (error) {
        if (!retriable(error)) throw error;
        failure = error;
      }
      const asked = failure instanceof KubeError ? (failure.retryAfterMs ?? 0) : 0;
      const wait = Math.max(asked, backoffMs(BACKOFF, attempt, random));
      if (clock.now() + wait >= deadline || signal.aborted) throw giveUp(pod, attempt + 1, failure);
      await delay(clock, wait, signal);
    }
  }

  async #patch(
    pod: PodRef,
    value: RedirectionState | null,
    timeoutMs: number,
  ): Promise<"patched" | "gone" | "conflict"> {
    const { client, signal } = this.#options;
    try {
      await client.request({ ...annotationPatch(pod, value), signal, timeoutMs });
      return "patched";
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      if (error.status === 404) return "gone";
      // 409 is also the answer to writers that collide, and some servers refuse a foreign uid as
      // invalid (422): only the pod itself tells which of them it was.
      if (error.status !== 409 && error.status !== 422) throw error;
      if ((await this.#uidNow(pod)) !== pod.uid) return "gone";
      if (error.status === 422) throw error;
      return "conflict";
    }
  }

  async #uidNow(pod: PodRef): Promise<string | undefined> {
    const { client, signal } = this.#options;
    try {
      const object = await client.request({
        method: "GET",
        path: podPath(pod.namespace, pod.name),
        signal,
        timeoutMs: CALL_TIMEOUT_MS,
      });
      return textOf(recordOf(recordOf(object).metadata).uid);
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    }
  }
}

function retriable(error: unknown): boolean {
  if (error instanceof KubeError) return error.transient || error.status === 401;
  return NO_ANSWER.has(codeOf(error));
}

function giveUp(pod: PodRef, tries: number, failure: unknown): AgentError {
  return new AgentError(
    codeOf(failure),
    `the annotation of ${podKey(pod)} wasn't written in ${tries} tries: ${messageOf(failure)}`,
    failure instanceof AgentError ? failure.remedy : undefined,
    { cause: failure },
  );
}
