// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { resolve } from "node:path";

/** Before the first test of this tier: the image of these sources. Seconds, where only little has changed. */
export function setup(): void {
  execFileSync(resolve(import.meta.dirname, "../../scripts/build-image"), { stdio: ["ignore", "ignore", "inherit"] });
}
