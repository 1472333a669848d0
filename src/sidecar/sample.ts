// SPDX-License-Identifier: Apache-2.0
import type { Redirection } from "../core/redirection.ts";
import { planRedirection } from "./plan.ts";
import { sidecarSettings } from "./settings.ts";

/**
 * What a pod with DNS capture in both families would get, for the self-test of whoever writes it; `proxy`:
 * whose packets are the proxy's, else istio-proxy's usual user and group.
 */
export function sampleRedirection(
  mode: "REDIRECT" | "TPROXY",
  ips: readonly string[],
  proxy: { readonly uid: number; readonly gid: number } | undefined,
): Redirection {
  const settings = sidecarSettings({ annotations: {}, proxy: undefined });
  return planRedirection({ ...settings, mode, dnsCapture: true, dualStack: true, ...proxy }, ips);
}
