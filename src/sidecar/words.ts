// SPDX-License-Identifier: Apache-2.0
import type { Redirection } from "../core/redirection.ts";
import type { SidecarSettings } from "./settings.ts";

const all = (values: readonly (string | number)[]) => values.join(", ");
const but = (values: readonly (string | number)[]) => (values.length === 0 ? "" : ` but ${all(values)}`);

/** A sidecar's settings for people, by what they are about; what is not set is not mentioned. */
export function describeSidecar(
  settings: SidecarSettings,
  { families }: Pick<Redirection, "families">,
): Record<string, string> {
  const { mode, uid, gid, includeInboundPorts, excludeInboundPorts } = settings;
  const inbound =
    includeInboundPorts === "*" ? `every port${but(excludeInboundPorts)}` : all(includeInboundPorts) || "nothing";
  const told: Readonly<Record<string, string>> = {
    mode,
    proxy: `uid ${uid}, gid ${gid}`,
    families: all(families.map((family) => `IPv${family}`)),
    inbound,
    outbound: outboundText(settings),
    "outbound ports left alone": all(settings.excludeOutboundPorts),
    "outbound ports always": all(settings.includeOutboundPorts),
    dns: settings.dnsCapture ? "to the sidecar" : "left alone",
    "interfaces left alone": all(settings.excludeInterfaces),
    "rerouted interfaces": all(settings.rerouteInterfaces),
    "invalid packets": settings.dropInvalid ? "dropped" : "",
  };
  return Object.fromEntries(Object.entries(told).filter(([, text]) => text !== ""));
}

function outboundText({ includeOutboundCidrs, excludeOutboundCidrs }: SidecarSettings): string {
  const wanted = includeOutboundCidrs === "*" ? "everything" : all(includeOutboundCidrs) || "nothing";
  return `${wanted}${but(excludeOutboundCidrs)}`;
}
