// SPDX-License-Identifier: Apache-2.0
import { PERMISSIONS, type Permission } from "../../kube/access.ts";
import { ApiFailure } from "./failure.ts";
import type { Resource } from "./resources.ts";

export type Verb = "get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection";

/** One rule of a ClusterRole. */
export interface AccessRule {
  readonly verbs: readonly Verb[];
  /** `pods`, `pods/status`. */
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
}

/** A bearer token and what its owner may do. */
export interface Account {
  /** Such as `system:serviceaccount:istio-system:istio-cni`. */
  readonly user: string;
  readonly token: string;
  readonly rules: "admin" | readonly AccessRule[];
}

export interface AccessRequest {
  readonly verb: Verb;
  readonly resource: Resource;
  readonly subresource: string | undefined;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
}

/** What our chart grants the agent, which is less than istio-cni's does; `more`: what some values add. */
export function agentRules(more: readonly Permission[] = []): AccessRule[] {
  return [...PERMISSIONS, ...more].map(({ resource, verbs, name }) => ({
    verbs,
    resources: [resource],
    ...(name === undefined ? {} : { resourceNames: [name] }),
  }));
}

/** The account of an Authorization header. @throws ApiFailure 401. */
export function authenticate(accounts: readonly Account[], header: string | undefined): Account | undefined {
  if (accounts.length === 0) return undefined;
  const token = /^Bearer (.+)$/.exec(header ?? "")?.[1];
  const account = accounts.find((candidate) => candidate.token === token);
  if (account === undefined) throw new ApiFailure(401, "Unauthorized");
  return account;
}

/** @throws ApiFailure 403, worded as RBAC does. */
export function authorize(account: Account | undefined, request: AccessRequest): void {
  if (account === undefined || account.rules === "admin") return;
  const { verb, resource, subresource, namespace, name } = request;
  const asked = subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`;
  const allowed = account.rules.some(
    (rule) =>
      rule.verbs.includes(verb) &&
      rule.resources.includes(asked) &&
      (rule.resourceNames === undefined || (name !== undefined && rule.resourceNames.includes(name))),
  );
  if (allowed) return;
  const what = `${resource.plural}${name === undefined ? "" : ` "${name}"`} is forbidden`;
  const where = namespace === undefined ? "at the cluster scope" : `in the namespace "${namespace}"`;
  throw new ApiFailure(
    403,
    `${what}: User "${account.user}" cannot ${verb} resource "${asked}" in API group "${resource.group}" ${where}`,
    { ...(name === undefined ? {} : { name }), kind: resource.plural },
  );
}
