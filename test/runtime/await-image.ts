// SPDX-License-Identifier: Apache-2.0
// Before the tests of a file of this tier: the image that build-image.ts has begun with is there.
import { existsSync, readFileSync } from "node:fs";
import { until } from "../../src/sandbox/until.ts";
import { OUTCOME } from "./build-image.ts";

await until("the image is built", () => existsSync(OUTCOME), 600_000);
const reason = readFileSync(OUTCOME, "utf8");
if (reason !== "") throw new Error(reason);
