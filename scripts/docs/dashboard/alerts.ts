// SPDX-License-Identifier: Apache-2.0
import type { AlertRule } from "../../../test/support/monitoring.ts";
import { escaped } from "../page.ts";
import { pieces } from "./chart.ts";
import { type Recording, valuesOf } from "./recording.ts";

const WIDTH = 1080;
const LEFT = 290;
const RIGHT = 20;
const TOP = 84;
const ROW = 26;
const BAR = 14;
const SOFT = "#5b6675";
const GRID = "#dde2e8";
const MARK_SECONDS = 20;
const STATES = { pending: "#e3b55e", firing: "#b83232" } as const;

/** When each alert was pending and firing in a recording. @throws Error for one that is not among the rules */
export function alertsSvg(alerts: readonly AlertRule[], { note, seconds, step, alerts: recorded }: Recording): string {
  const unknown = recorded.find(({ labels }) => alerts.every(({ name }) => name !== labels.alertname));
  if (unknown !== undefined) throw new Error(`no rule is called ${unknown.labels.alertname}`);
  const bottom = TOP + alerts.length * ROW;
  const atX = (second: number) => Math.round((LEFT + (second / seconds) * (WIDTH - LEFT - RIGHT)) * 10) / 10;
  const parts: string[] = [];
  for (let second = 0; second <= seconds; second += MARK_SECONDS) {
    const text = `${Math.floor(second / 60)}:${String(second % 60).padStart(2, "0")}`;
    parts.push(
      `<path d="M${atX(second)} ${TOP}V${bottom}" stroke="${GRID}"/><text x="${atX(second)}" y="${bottom + 16}" text-anchor="middle" font-size="11" fill="${SOFT}">${text}</text>`,
    );
  }
  for (const [index, alert] of alerts.entries()) {
    const y = TOP + index * ROW;
    parts.push(
      `<text x="10" y="${y + 18}">${escaped(alert.name)}</text><text x="${LEFT - 14}" y="${y + 18}" text-anchor="end" font-size="11" fill="${SOFT}">for ${escaped(alert.for)}</text>`,
    );
    for (const [state, colour] of Object.entries(STATES)) {
      const found = recorded.find(({ labels }) => labels.alertname === alert.name && labels.alertstate === state);
      if (found === undefined) continue;
      const { runs, dots } = pieces(valuesOf(found));
      for (const run of [...runs, ...dots.map((dot) => [dot])]) {
        // Until the step at which it was not so any more.
        const [from, to] = [run[0]?.index ?? 0, (run.at(-1)?.index ?? 0) + 1];
        const [x, end] = [atX(from * step), atX(Math.min(to * step, seconds))];
        parts.push(
          `<rect x="${x}" y="${y + (ROW - BAR) / 2}" width="${Math.round((end - x) * 10) / 10}" height="${BAR}" fill="${colour}"/>`,
        );
      }
    }
  }
  const legend = Object.entries(STATES).map(([state, colour], index) => {
    const x = LEFT + index * 90;
    return `<rect x="${x}" y="60" width="12" height="12" fill="${colour}"/><text x="${x + 18}" y="71">${state}</text>`;
  });
  const height = bottom + 28;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escaped(`Alerts of the run; ${note}`)}" font-family="system-ui, sans-serif" font-size="13" fill="#1c2430">
<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>
<text x="10" y="26" font-size="17" font-weight="600">Alerts</text>
<text x="10" y="48" font-size="12" fill="${SOFT}">${escaped(note)}</text>
${legend.join("\n")}
${parts.join("\n")}
</svg>
`;
}
