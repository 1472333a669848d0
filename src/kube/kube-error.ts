// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import { isRecord, listOf, textOf } from "./json.ts";

const CODES: ReadonlyMap<number, string> = new Map([
  [401, "KUBE_UNAUTHORIZED"],
  [403, "KUBE_FORBIDDEN"],
  [404, "KUBE_NOT_FOUND"],
  [409, "KUBE_CONFLICT"],
  [410, "KUBE_EXPIRED"],
  [422, "KUBE_INVALID"],
  [429, "KUBE_THROTTLED"],
]);

/** Longest wait that a server may ask for by Retry-After: beyond it we would look dead. */
const RETRY_AFTER_MAX_MS = 60_000;

/** A refusal by the API server: the HTTP status (or the code of a Status object) and what it said. */
export class KubeError extends AgentError {
  override readonly name = "KubeError";
  constructor(
    /** Such as `GET /api/v1/pods`. */
    readonly call: string,
    readonly status: number,
    /** `reason` of the Status object, else empty. */
    readonly reason: string,
    readonly said: string,
    /** Reasons in `details.causes`. */
    readonly causes: readonly string[] = [],
    readonly retryAfterMs: number | undefined = undefined,
    /** `details.name`: which object the answer is about, else empty. */
    readonly subject: string = "",
  ) {
    super(
      CODES.get(status) ?? `KUBE_STATUS_${status}`,
      `${call}: the API server answered ${status}${said === "" ? "" : `: ${said}`}`,
      remedyOf(status),
    );
  }

  /** True when the version we hold is older than the server's history: only a new list helps. */
  get expired(): boolean {
    return this.status === 410 || this.reason === "Expired" || this.reason === "Gone";
  }

  /**
   * True when the version we hold lies in the server's future (etcd restored from a backup, or a
   * replica that lags). Waiting for it may take for ever; client-go lists again too.
   */
  get fromFuture(): boolean {
    return this.causes.includes("ResourceVersionTooLarge") || this.said.includes("Too large resource version");
  }

  /** True when the same request may succeed later. */
  get transient(): boolean {
    return this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** KubeError out of the body of a refused request, or of an ERROR event of a watch. */
export function kubeError(call: string, status: number, body: unknown, retryAfter?: string): KubeError {
  if (!isRecord(body)) {
    const said = typeof body === "string" ? body.slice(0, 200) : "";
    return new KubeError(call, status, "", said, [], retryAfterMs(retryAfter));
  }
  const details = isRecord(body.details) ? body.details : {};
  const causes = listOf(details.causes).map((cause) => (isRecord(cause) ? textOf(cause.reason) : ""));
  const code = typeof body.code === "number" && body.code > 0 ? body.code : status;
  const said = textOf(body.message).slice(0, 1000);
  const subject = textOf(details.name);
  return new KubeError(call, code, textOf(body.reason), said, causes, retryAfterMs(retryAfter), subject);
}

function retryAfterMs(header: string | undefined): number | undefined {
  if (header === undefined || !/^\d{1,6}$/.test(header)) return undefined;
  return Math.min(RETRY_AFTER_MAX_MS, Number(header) * 1000);
}

function remedyOf(status: number): string | undefined {
  if (status === 401) return "check that the service account token is mounted and not expired";
  if (status === 403) return "check the agent's ClusterRole and its binding";
  return undefined;
}
