// SPDX-License-Identifier: Apache-2.0
// What a pod's annotations change about its capture. The pod's author is not trusted: interface names
// and CIDRs end up in rule texts, so anything that is not exactly a name or a CIDR is refused.
import type { Config } from "./config/config.ts";
import {
  BYPASS_INBOUND_ANNOTATION,
  DNS_CAPTURE_ANNOTATION,
  ENGINE_ANNOTATION,
  EXCLUDE_OUTBOUND_ANNOTATION,
  REROUTE_INTERFACES_ANNOTATION,
} from "./constants.ts";
import { AgentError } from "./errors.ts";
import { parseGoBool } from "./go-bool.ts";
import { canonicalCidr } from "./ip.ts";
import type { Pod } from "./pod.ts";
import type { EngineName } from "./ports/dataplane.ts";

export interface Overrides {
  readonly dnsCapture: boolean;
  readonly bypassInbound: boolean;
  readonly rerouteInterfaces: readonly string[];
  /** What the pod asks for, where the node allows it. */
  readonly engine: EngineName | undefined;
  /** The node's and, where the node allows it, the pod's. */
  readonly excludeOutboundCidrs: readonly string[];
  /** Sentences about annotations that are not heeded. */
  readonly warnings: readonly string[];
}

const MAX_INTERFACES = 64;
const MAX_CIDRS = 256;
/** Linux dev_valid_name() allows more; these characters are safe in every rule syntax. */
const INTERFACE_NAME = /^[A-Za-z0-9_.-]{1,15}$/;

type OverrideConfig = Pick<
  Config,
  "dnsCapture" | "excludeOutboundCidrs" | "podExcludeOutboundCidrs" | "podEngineAnnotation"
>;

/**
 * Capture settings of one pod: the node's, overridden by the pod's annotations. A boolean that Go
 * would not parse counts as absent, with a warning, as upstream.
 * @throws AgentError ANNOTATION_INVALID naming annotation and value: a bad interface name or CIDR
 */
export function captureOverrides(pod: Pick<Pod, "annotations">, config: OverrideConfig): Overrides {
  const warnings: string[] = [];
  const boolean = (annotation: string, otherwise: boolean): boolean => {
    const text = annotationOf(pod, annotation);
    if (text === undefined) return otherwise;
    const value = parseGoBool(text);
    if (value === undefined) {
      warnings.push(`annotation ${annotation}=${shown(text)} is neither true nor false; it is ignored`);
    }
    return value ?? otherwise;
  };
  const dnsCapture = boolean(DNS_CAPTURE_ANNOTATION, config.dnsCapture);
  const bypassInbound = boolean(BYPASS_INBOUND_ANNOTATION, false);
  const rerouteInterfaces = listed(pod, REROUTE_INTERFACES_ANNOTATION, MAX_INTERFACES, interfaceName);

  let podCidrs: readonly string[] = [];
  if (config.podExcludeOutboundCidrs) {
    podCidrs = listed(pod, EXCLUDE_OUTBOUND_ANNOTATION, MAX_CIDRS, canonicalCidr);
  } else if (annotationOf(pod, EXCLUDE_OUTBOUND_ANNOTATION) !== undefined) {
    warnings.push(
      `annotation ${EXCLUDE_OUTBOUND_ANNOTATION} is not heeded: this node does not allow it (AMBIENT_CNI_POD_EXCLUDE_OUTBOUND_CIDRS)`,
    );
  }
  const engine = engineOf(pod, config, warnings);
  const excludeOutboundCidrs = [...new Set([...config.excludeOutboundCidrs, ...podCidrs])];
  return { dnsCapture, bypassInbound, rerouteInterfaces, engine, excludeOutboundCidrs, warnings };
}

const ENGINES: readonly EngineName[] = ["ebpf", "nftables", "iptables"];

/** A value that is no engine counts as absent, with a warning: it is a wish, and capture comes first. */
function engineOf(pod: Pick<Pod, "annotations">, config: OverrideConfig, warnings: string[]): EngineName | undefined {
  const text = annotationOf(pod, ENGINE_ANNOTATION);
  if (text === undefined) return undefined;
  if (!config.podEngineAnnotation) {
    warnings.push(
      `annotation ${ENGINE_ANNOTATION} is not heeded: this node does not allow it (AMBIENT_CNI_POD_ENGINE)`,
    );
    return undefined;
  }
  const engine = ENGINES.find((name) => name === text);
  if (engine === undefined) {
    warnings.push(`annotation ${ENGINE_ANNOTATION}=${shown(text)} is none of ${ENGINES.join(", ")}; it is ignored`);
  }
  return engine;
}

function annotationOf(pod: Pick<Pod, "annotations">, name: string): string | undefined {
  return Object.hasOwn(pod.annotations, name) ? pod.annotations[name] : undefined;
}

const shown = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);

function interfaceName(text: string): string {
  if (!INTERFACE_NAME.test(text) || text === "." || text === "..") throw new Error("no interface name");
  return text;
}

function listed(
  pod: Pick<Pod, "annotations">,
  annotation: string,
  limit: number,
  parse: (item: string) => string,
): readonly string[] {
  const text = annotationOf(pod, annotation) ?? "";
  const items = new Set<string>();
  for (const part of text.split(",")) {
    const item = part.trim();
    if (item === "") continue;
    try {
      items.add(parse(item));
    } catch (cause) {
      const what = annotation === REROUTE_INTERFACES_ANNOTATION ? "an interface name" : "a CIDR";
      throw new AgentError(
        "ANNOTATION_INVALID",
        `annotation ${annotation}: ${shown(item)} is not ${what}`,
        `correct the annotation: ${what} is expected, several are separated by commas`,
        { cause },
      );
    }
    if (items.size > limit) {
      throw new AgentError("ANNOTATION_INVALID", `annotation ${annotation} has more than ${limit} items`);
    }
  }
  return [...items];
}
