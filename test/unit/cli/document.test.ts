// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { buildProgram } from "../../../src/cli/commands.ts";
import { cliDocument } from "../../../src/cli/document.ts";
import { processEnv } from "../../../src/cli/env.ts";

test("docs/cli.md says what the command tree says", async () => {
  const document = cliDocument(buildProgram(processEnv(), () => undefined));
  await expect(document).toMatchFileSnapshot("../../../docs/cli.md");
});
