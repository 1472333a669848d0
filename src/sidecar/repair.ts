// SPDX-License-Identifier: Apache-2.0
// Which pods have started without their redirection, and what is done about them. Pure.
import type { RepairConfig } from "../core/config/config.ts";
import type { Pod } from "../core/pod.ts";
import { matchesLabels } from "../core/selector.ts";
import { matchesFields } from "../core/selector-text.ts";

export type RepairKind = "repair" | "delete" | "label";

/** The first that is on: never more than one. */
export function repairKind({ enabled, repairPods, deletePods, labelPods }: RepairConfig): RepairKind | undefined {
  if (!enabled) return undefined;
  if (repairPods) return "repair";
  if (deletePods) return "delete";
  return labelPods ? "label" : undefined;
}

/**
 * True for an injected pod whose check (istio-validation) ended as one does that finds no redirection, and has
 * not succeeded since. As upstream, an empty setting and exit status 0 mean any.
 */
export function isBroken(pod: Pod, config: RepairConfig): boolean {
  if (pod.initFailures === undefined) return false;
  if (config.nodeName !== "" && pod.nodeName !== config.nodeName) return false;
  if (config.sidecarAnnotation !== "" && !Object.hasOwn(pod.annotations, config.sidecarAnnotation)) return false;
  if (!matchesLabels(config.labelSelectors, pod.labels) || !matchesFields(config.fieldSelectors, pod)) return false;
  const message = config.initContainerTerminationMessage.trim();
  return pod.initFailures.containers.some(
    ({ name, exitCode, message: said }) =>
      (config.initContainerName === "" || name === config.initContainerName) &&
      (config.initContainerExitCode === 0 || exitCode === config.initContainerExitCode) &&
      (message === "" || said === message),
  );
}
