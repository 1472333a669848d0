// SPDX-License-Identifier: Apache-2.0
// Run by tests in a changed environment: starts a dataplane and prints how that went, as JSON.
// Argument: the name of its engine (lab-engines.ts), nftables by default.
import { codeOf, messageOf } from "../../src/core/errors.ts";
import { native } from "../../src/native/load.ts";
import { startDataplane } from "./lab-dataplane.ts";
import { ENGINES } from "./lab-engines.ts";

const engine = ENGINES.find(({ name }) => name === process.argv[2]);

startDataplane(native(), engine).then(
  (dataplane) => {
    console.log(JSON.stringify({ tests: dataplane.tests }));
    dataplane.close();
  },
  (error: unknown) => console.log(JSON.stringify({ code: codeOf(error), message: messageOf(error) })),
);
