// SPDX-License-Identifier: Apache-2.0
import type { Typed } from "./line.ts";

/** How `monitor` ends. */
export const COUNTED = /^\d+ of \d+ flows shown, \d+ lost\n$/;

/** Such flows, and nothing else but what is said about those that nobody has seen. */
const flows = ({ source }: RegExp): readonly RegExp[] => [
  new RegExp(`^\\S+ (?:in |out) tcp ${source}$`, "m"),
  new RegExp(`^(?:\\S+ (?:(?:in |out) tcp ${source}|! .*)\n)+$`),
];

/** They go on until Ctrl-C, and are begun together: monitors tell of requests that pods make meanwhile. */
export const STREAMS: readonly Typed[] = [
  {
    line: "ambient-cni monitor",
    says: [/ ztunnel outbound +shop\/web > /, / passed +local /],
    notes: COUNTED,
  },
  {
    line: "ambient-cni monitor --verdict passed,dropped",
    says: flows(/passed +(?:local|host) .*/),
    notes: COUNTED,
  },
  {
    line: "ambient-cni monitor --pod shop/web --verdict passed,dropped",
    says: flows(/passed +local +shop\/web > .*/),
    notes: COUNTED,
  },
  {
    line: "ambient-cni monitor -o json > flows",
    says: [/"type":"head"/, /"destination":"10\.96\.0\.20"/, /"reason":"local"/, /"reason":"own-port"/],
    notes: COUNTED,
  },
  { line: "ambient-cni ui", says: [/^http:\/\/127\.0\.0\.1:\d+\/\S{10,}\/\n$/] },
  { line: "ambient-cni ui --port 8080", says: [/^http:\/\/127\.0\.0\.1:8080\/\S{10,}\/\n$/] },
  {
    line: "ambient-cni ui --socket /run/istio-cni/ambient-cni.sock",
    says: [/^http:\/\/127\.0\.0\.1:\d+\/\S{10,}\/\n$/],
  },
];

/** Read again what STREAMS saw. */
export const RECORDED: readonly Typed[] = [
  {
    line: "ambient-cni monitor --from flows --dst 10.96.0.0/12 --port 80",
    says: flows(/ztunnel outbound +shop\/web > 10\.96\.0\.20:80/),
    notes: COUNTED,
  },
  {
    line: "ambient-cni monitor --from flows --verdict passed,dropped --pod shop/",
    says: flows(/passed +(?:local|host) .*/),
    notes: COUNTED,
  },
  {
    line: "ambient-cni monitor --last 1000 --limit 7",
    says: flows(/\w+ +\S+ +.* > .*/),
    notes: /^7 of \d+ flows shown, \d+ lost\n$/,
  },
  {
    line: "ambient-cni monitor --last 1000 --limit 3 --verdict passed,refused -o wide",
    says: flows(/(?:passed|refused) +\S+ +.* > .* {2}\S.*/),
    notes: /^3 of \d+ flows shown, \d+ lost\n$/,
  },
];
