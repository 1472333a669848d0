// SPDX-License-Identifier: Apache-2.0
// Who has this node's pods once the agent has ended, judged from what the API said. Pure.
import type { AgentPod, ContainerImage, DaemonSet, Succession } from "../core/daemonset.ts";
import { repositoryOf } from "../core/image.ts";
import { misplacement, type NodeInfo } from "../core/placement.ts";

/** What a live GET brought: an object, the certainty that there is none, or why nothing is known. */
export type Answer<T> = { readonly found: T | undefined } | { readonly unknown: string };

export interface Testimony {
  /** `namespace/name` that was asked for. */
  readonly name: string;
  readonly daemonSet: Answer<DaemonSet>;
  readonly pod: Answer<AgentPod>;
  readonly node: Answer<NodeInfo>;
}

/** The container in istio-cni's pods, where there are several. */
const CONTAINER = "install-cni";

/**
 * Only what is certain counts: a DaemonSet that is gone or going, a node that it does not select any more, a
 * template with another image. Whatever can't be known leaves everything as it is.
 */
export function successorOf({ name, daemonSet, pod, node }: Testimony): Succession {
  if ("unknown" in daemonSet) {
    return { successor: "same", reason: `whether DaemonSet ${name} goes is not known: ${daemonSet.unknown}` };
  }
  const { found } = daemonSet;
  if (found === undefined) return { successor: "none", reason: `DaemonSet ${name} is gone` };
  if (found.deleting) return { successor: "none", reason: `DaemonSet ${name} is being deleted` };
  if ("found" in node && node.found !== undefined) {
    const misplaced = misplacement(found.placement, node.found);
    if (misplaced !== undefined) {
      return { successor: "none", reason: `DaemonSet ${name} does not select node ${node.found.name}: ${misplaced}` };
    }
  }
  const image = "found" in pod && pod.found !== undefined ? replacedImage(found, pod.found) : undefined;
  if (image !== undefined) return { successor: "other", reason: `DaemonSet ${name} runs ${image} from now on` };
  const doubt = "unknown" in node ? `; whether it selects this node is not known: ${node.unknown}` : "";
  return { successor: "same", reason: `DaemonSet ${name} stays${doubt}` };
}

/** The template's image in place of ours, where its repository is another one. */
function replacedImage(daemonSet: DaemonSet, pod: AgentPod): string | undefined {
  // Made from the very template: a webhook may have rewritten the pod's image, to a mirror say.
  if (pod.templateGeneration !== undefined && pod.templateGeneration === daemonSet.templateGeneration) return undefined;
  const [ours, next] = [own(pod.containers), own(daemonSet.containers)];
  if (ours === undefined || next === undefined) return undefined;
  const [before, after] = [repositoryOf(ours.image), repositoryOf(next.image)];
  return before === undefined || after === undefined || before === after ? undefined : next.image;
}

function own(containers: readonly ContainerImage[]): ContainerImage | undefined {
  const [first, ...more] = containers;
  return more.length === 0 ? first : containers.find(({ name }) => name === CONTAINER);
}
