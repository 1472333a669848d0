// SPDX-License-Identifier: Apache-2.0
import { closest } from "../config/closest.ts";
import { AgentError } from "../errors.ts";
import { canonicalIp } from "../ip.ts";
import { type PodReport, podTitle } from "./pods.ts";

type Named = Pick<PodReport, "uid" | "namespace" | "name" | "ips" | "netns">;

const SHOWN = 5;

/**
 * The pod that a person means: `[namespace/]name`, a uid, an address, a netns (`dev:ino`, or its inode as
 * tables show it), or the beginning of a name or uid where only one pod has it. `within` names the namespace whose
 * pods alone are given, for the error.
 * @throws AgentError POD_NOT_FOUND | POD_AMBIGUOUS that names candidates
 */
export function findPod<Pod extends Named>(
  pods: readonly Pod[],
  reference: string,
  { within }: { readonly within?: string | undefined } = {},
): Pod {
  const found = matching(pods, reference);
  const [only, ...more] = found;
  if (only === undefined) {
    const near = closest(reference, pods.flatMap(names));
    const hint = near === undefined ? "`ambient-cni pods --all` lists them" : `did you mean ${near}?`;
    const where = within === undefined ? "this node" : `namespace ${JSON.stringify(within)} on this node`;
    throw new AgentError("POD_NOT_FOUND", `no pod of ${where} is ${JSON.stringify(reference)}`, hint);
  }
  if (more.length > 0) {
    const titles = found.map(podTitle).sort();
    const rest = titles.length > SHOWN ? ` and ${titles.length - SHOWN} more` : "";
    throw new AgentError(
      "POD_AMBIGUOUS",
      `${JSON.stringify(reference)} may be ${titles.slice(0, SHOWN).join(", ")}${rest}`,
      "write more of its name, or its namespace",
    );
  }
  return only;
}

/**
 * Those among which `findPod` would choose, for who has yet to look at their addresses; undefined where it takes that:
 * the reference is an address, or nobody's name.
 */
export function podsNamed<Pod extends Omit<Named, "ips">>(
  pods: readonly Pod[],
  reference: string,
): readonly Pod[] | undefined {
  if (addressOf(reference) !== undefined) return undefined;
  const found = new Set(
    matching(
      pods.map((pod) => ({ ...pod, ips: [], pod })),
      reference,
    ).map(({ pod }) => pod),
  );
  return found.size === 0 ? undefined : [...found];
}

/** Every pod that the reference may mean: those it names exactly, else those it is the beginning of. */
function matching<Pod extends Named>(pods: readonly Pod[], reference: string): Pod[] {
  const ip = addressOf(reference);
  const exact = pods.filter(
    (pod) =>
      names(pod).includes(reference) ||
      (ip !== undefined && pod.ips.includes(ip)) ||
      pod.netns === reference ||
      pod.netns?.split(":")[1] === reference,
  );
  if (exact.length > 0 || reference === "") return exact;
  return pods.filter((pod) => names(pod).some((name) => name.startsWith(reference)));
}

function names({ uid, namespace, name }: Named): string[] {
  return namespace === null || name === null ? [uid] : [name, `${namespace}/${name}`, uid];
}

function addressOf(text: string): string | undefined {
  try {
    return canonicalIp(text);
  } catch {
    return undefined;
  }
}
