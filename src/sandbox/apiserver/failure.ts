// SPDX-License-Identifier: Apache-2.0
import { qualified, type Resource } from "./resources.ts";

const REASONS: ReadonlyMap<number, string> = new Map([
  [400, "BadRequest"],
  [401, "Unauthorized"],
  [403, "Forbidden"],
  [404, "NotFound"],
  [405, "MethodNotAllowed"],
  [406, "NotAcceptable"],
  [409, "Conflict"],
  [410, "Expired"],
  [413, "RequestEntityTooLarge"],
  [415, "UnsupportedMediaType"],
  [422, "Invalid"],
  [429, "TooManyRequests"],
  [500, "InternalError"],
  [503, "ServiceUnavailable"],
  [504, "Timeout"],
]);

export interface FailureDetails {
  readonly name?: string;
  readonly group?: string;
  readonly kind?: string;
  readonly uid?: string;
  readonly retryAfterSeconds?: number;
  readonly causes?: readonly { readonly reason?: string; readonly message?: string; readonly field?: string }[];
}

/** An answer of the server that is no success: a Status object, as the real one sends. */
export class ApiFailure extends Error {
  override readonly name = "ApiFailure";
  readonly reason: string;
  constructor(
    readonly code: number,
    message: string,
    readonly details: FailureDetails = {},
    reason?: string,
  ) {
    super(message);
    this.reason = reason ?? REASONS.get(code) ?? "Unknown";
  }

  toStatus(): unknown {
    return {
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Failure",
      message: this.message,
      reason: this.reason,
      details: this.details,
      code: this.code,
    };
  }
}

function detailsOf(resource: Resource, name: string): FailureDetails {
  return { name, kind: resource.plural, ...(resource.group === "" ? {} : { group: resource.group }) };
}

export function notFound(resource: Resource, name: string): ApiFailure {
  return new ApiFailure(404, `${qualified(resource)} "${name}" not found`, detailsOf(resource, name));
}

export function alreadyExists(resource: Resource, name: string): ApiFailure {
  const message = `${qualified(resource)} "${name}" already exists`;
  return new ApiFailure(409, message, detailsOf(resource, name), "AlreadyExists");
}

export function conflict(resource: Resource, name: string, why: string): ApiFailure {
  const message = `Operation cannot be fulfilled on ${qualified(resource)} "${name}": ${why}`;
  return new ApiFailure(409, message, detailsOf(resource, name));
}

export function invalid(resource: Resource, name: string, field: string, why: string): ApiFailure {
  return new ApiFailure(422, `${resource.kind} "${name}" is invalid: ${field}: ${why}`, {
    ...detailsOf(resource, name),
    kind: resource.kind,
    causes: [{ reason: "FieldValueInvalid", message: why, field }],
  });
}

export function expired(message: string): ApiFailure {
  return new ApiFailure(410, message);
}
