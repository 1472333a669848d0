// SPDX-License-Identifier: Apache-2.0
import { accessSync, constants } from "node:fs";

/** What the playground cannot begin without. The container image has none of them, on purpose. */
const PROGRAMS = ["bash", "ip", "mount", "setpriv", "unshare"];

/** @throws Error that says which programs are on none of `path`'s folders, and where to go instead */
export function assertPrograms(path: string): void {
  const missing = PROGRAMS.filter((name) => !path.split(":").some((folder) => isProgram(`${folder}/${name}`)));
  if (missing.length === 0) return;
  throw new Error(
    `the playground needs ${missing.join(", ")}: run it from a checkout (npm run demo), not in the image`,
  );
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
