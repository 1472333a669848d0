// SPDX-License-Identifier: Apache-2.0

export interface Chapter {
  readonly title: string;
  /** Files below docs/, in reading order. */
  readonly pages: readonly string[];
}

/** The site's table of contents. A page that is not listed comes at the end, below "More". */
export const CONTENTS: readonly Chapter[] = [
  { title: "Start", pages: ["START.md"] },
  {
    title: "Concepts",
    pages: ["concepts/capture.md", "concepts/connections.md", "concepts/migration.md", "ARCHITECTURE.md"],
  },
  {
    title: "Tasks",
    pages: [
      "INSTALL.md",
      "MIGRATION-SIDECAR.md",
      "TROUBLESHOOTING.md",
      "MONITOR.md",
      "MONITORING.md",
      "IMAGE.md",
      "SCENARIOS.md",
    ],
  },
  { title: "Reference", pages: ["cli.md", "json.md", "config.md", "metrics.md", "checks.md"] },
  { title: "Performance", pages: ["PERFORMANCE.md", "COMPARISON.md"] },
];

export const FIRST = "START.md";
