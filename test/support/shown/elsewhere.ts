// SPDX-License-Identifier: Apache-2.0
// Command lines of pages that another test runs than test/e2e/docs.test.ts.

export interface Elsewhere {
  readonly lines: readonly string[];
  readonly test: string;
  /** What in that test runs them. */
  readonly by: RegExp;
}

export const ELSEWHERE: readonly Elsewhere[] = [
  {
    lines: ["ambient-cni sandbox demo"],
    test: "test/e2e/demo.test.ts",
    by: /await demo\(\["--json"\]\)/,
  },
  {
    // In one run.
    lines: ["ambient-cni sandbox demo --keep", "ambient-cni sandbox demo --engine nftables"],
    test: "test/e2e/demo.test.ts",
    by: /\["--keep", "--engine", "nftables"\]/,
  },
  {
    // Each by itself; FILE is the one that docs/SCENARIOS.md shows.
    lines: [
      "ambient-cni sandbox run FILE",
      "ambient-cni sandbox run scenarios/*.yaml",
      "ambient-cni sandbox run scenarios/agent-and-ztunnel-die.yaml",
      "ambient-cni sandbox run scenarios/two-nodes.yaml",
    ],
    test: "test/e2e/scenarios.test.ts",
    by: /SCENARIOS = readdirSync\(DIRECTORY\)/,
  },
  {
    lines: ["ambient-cni remove --host-root /host"],
    test: "test/e2e/removal-by-hand.test.ts",
    by: /inDebugContainer\(sandbox, "remove", \.\.\.root/,
  },
  {
    lines: ["promtool test rules install/monitoring/alerts.test.yaml"],
    test: "test/e2e/monitoring.test.ts",
    by: /promtool\("test", "rules", "install\/monitoring\/alerts\.test\.yaml"\)/,
  },
  {
    lines: ["npm run build:image"],
    test: "test/runtime/build-image.ts",
    by: /scripts\/build-image/,
  },
  {
    // What `npm test` itself is.
    lines: ["npm test", "npm run lint"],
    test: "scripts/test",
    by: /npm run --silent lint\nexec node scripts\/run-tests\.mjs/,
  },
  ...["cli/checks", "cli/document", "config/document", "docs/json", "telemetry/document"].map((name) => ({
    // `-u` writes what the test compares.
    lines: [`npx vitest run --project unit test/unit/${name}.test.ts -u`],
    test: `test/unit/${name}.test.ts`,
    by: /toMatchFileSnapshot\(/,
  })),
];
