// SPDX-License-Identifier: Apache-2.0
// Whose process is it? Answered from /proc/PID/cgroup, in every form kubelet and the runtimes write.

/** Owner of a process as its cgroup names it. */
export interface CgroupOwner {
  /** Pod UID with dashes, or a static pod's config hash; undefined where the path has none. */
  readonly podUid: string | undefined;
  /** Container id; undefined where the path has none. */
  readonly containerId: string | undefined;
}

/**
 * `pod<uid>` as a part of a path: cgroupfs `pod1234-...`, systemd `kubepods-burstable-pod1234_....slice`,
 * containerd without slices `kubepods-pod1234_....slice:cri-containerd:ID`. The uid of a static pod is
 * a bare hash.
 */
const POD_UID = /(?:^|[/:._-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=$|[/:.])/g;

/** `crio-ID.scope`, `cri-containerd-ID.scope`, `docker-ID.scope`, `...:cri-containerd:ID`, or a bare ID. */
const CONTAINER_ID = /(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?=$|[/:])/g;

const MAX_BYTES = 65_536;

/**
 * Owner of a process, or undefined when its cgroups name none or contradict each other.
 *
 * The outermost pod counts: a privileged container may make cgroups below its own, and must not pass
 * for another pod by naming one `pod<uid>`. `ancestors` are the uids and ids of the cgroup that the
 * whole node lives in (docker-in-docker, kind in a pod), which are skipped.
 */
export function cgroupOwner(text: string, ancestors: ReadonlySet<string>): CgroupOwner | undefined {
  let podUid: string | undefined;
  let containerId: string | undefined;
  for (const path of paths(text)) {
    const uid = matches(path, POD_UID).find((one) => !ancestors.has(one));
    const id = matches(path, CONTAINER_ID).find((one) => !ancestors.has(one));
    // v1 has a line per hierarchy. One without a pod says nothing, two that differ say nothing certain.
    if (uid !== undefined && podUid !== undefined && uid !== podUid) return undefined;
    if (id !== undefined && containerId !== undefined && id !== containerId) return undefined;
    podUid ??= uid;
    containerId ??= id;
  }
  return podUid === undefined && containerId === undefined ? undefined : { podUid, containerId };
}

/** Every pod uid and container id in the cgroup of the node's first process: the node itself lives in those. */
export function cgroupAncestors(text: string): ReadonlySet<string> {
  return new Set([...paths(text)].flatMap((path) => [...matches(path, POD_UID), ...matches(path, CONTAINER_ID)]));
}

function matches(path: string, pattern: RegExp): string[] {
  return [...path.matchAll(pattern)].map(([, id = ""]) => id.replaceAll("_", "-"));
}

/** Third part of each `hierarchy:controllers:path` line; the path itself may contain colons. */
function* paths(text: string): Generator<string> {
  for (const line of text.slice(0, MAX_BYTES).split("\n")) {
    const [, path] = /^\d+:[^:]*:(\/.*)$/.exec(line) ?? [];
    if (path !== undefined) yield path;
  }
}
