// SPDX-License-Identifier: Apache-2.0
// Runs vitest and prints the closing line that CI reads. A skipped test is a failure where nothing may skip.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const dir = mkdtempSync(join(tmpdir(), "ambient-cni-tests-"));
const report = join(dir, "report.json");
try {
  const run = spawnSync(
    process.execPath,
    [
      "node_modules/vitest/vitest.mjs",
      "run",
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${report}`,
      ...process.argv.slice(2),
    ],
    { stdio: "inherit" },
  );
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
    readFileSync(report, "utf8"),
  );
  const brokenFiles = testResults.filter(
    ({ status, assertionResults }) => status === "failed" && assertionResults.length === 0,
  );
  const skipped = numPendingTests + numTodoTests;
  const counted = numFailedTests + brokenFiles.length;
  // An error outside of every test is in no report.
  const failed = run.status !== 0 && counted === 0 ? 1 : counted;
  console.log(`${numPassedTests} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = run.status === 0 && failed === 0 ? 0 : 1;
} finally {
  rmSync(dir, { recursive: true, force: true });
}
