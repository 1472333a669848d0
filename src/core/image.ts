// SPDX-License-Identifier: Apache-2.0

const DEFAULT_REGISTRY = "docker.io";

/**
 * Registry and path of an image reference, without tag and digest, spelled out as runtimes do it: `a/b:1` and
 * `docker.io/a/b@sha256:...` are one repository. Undefined for an empty one.
 */
export function repositoryOf(reference: string): string | undefined {
  const [name = ""] = reference.trim().split("@", 1);
  // A colon before the last slash belongs to the registry's port.
  const colon = name.indexOf(":", name.lastIndexOf("/") + 1);
  const untagged = colon < 0 ? name : name.slice(0, colon);
  if (untagged === "") return undefined;
  const slash = untagged.indexOf("/");
  const first = untagged.slice(0, Math.max(slash, 0));
  if (first === "localhost" || /[.:]/.test(first)) return untagged.replace(/^index\.docker\.io\//, "docker.io/");
  return `${DEFAULT_REGISTRY}/${slash < 0 ? `library/${untagged}` : untagged}`;
}
