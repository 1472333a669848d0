// SPDX-License-Identifier: Apache-2.0
import { readFileSync, realpathSync } from "node:fs";
import { type Mount, parseMountinfo } from "./mountinfo.ts";

/**
 * Where a directory that a container has mounted lies on the node: a chart mounts the node's directories at places of
 * its own. Undefined where the node's first process has no such place, or its mounts can't be read.
 */
export function placeOnNode(procDir: string, path: string): string | undefined {
  try {
    const read = (pid: string, dir: string) => parseMountinfo(readFileSync(`${dir}/${pid}/mountinfo`, "utf8"));
    return placeAmong(read("self", "/proc"), read("1", procDir), realpathSync(path));
  } catch {
    return undefined;
  }
}

/** The same for given mounts, of ours and of the node. */
export function placeAmong(own: readonly Mount[], node: readonly Mount[], path: string): string | undefined {
  const mount = seenAt(own, path);
  if (mount === undefined) return undefined;
  const inside = join(mount.root, tail(mount.point, path));
  const places = node
    .filter(({ device, root }) => device === mount.device && isBelow(root, inside))
    .map((one) => ({ one, place: join(one.point, tail(one.root, inside)) }))
    // What is mounted over it hides it.
    .filter(({ one, place }) => seenAt(node, place) === one)
    .sort((a, b) => b.one.root.length - a.one.root.length || a.place.length - b.place.length);
  return places[0]?.place;
}

/** The mount that shows this path: the innermost one, and of several at one point the last. */
function seenAt(mounts: readonly Mount[], path: string): Mount | undefined {
  return mounts
    .filter(({ point }) => isBelow(point, path))
    .reduce<Mount | undefined>(
      (best, mount) => (best === undefined || mount.point.length >= best.point.length ? mount : best),
      undefined,
    );
}

function isBelow(outer: string, path: string): boolean {
  return outer === "/" || path === outer || path.startsWith(`${outer}/`);
}

/** What of `path` is below `outer`. */
function tail(outer: string, path: string): string {
  return outer === "/" ? path : path.slice(outer.length);
}

function join(point: string, rest: string): string {
  const path = `${point === "/" ? "" : point}${rest === "/" ? "" : rest}`;
  return path === "" ? "/" : path;
}
