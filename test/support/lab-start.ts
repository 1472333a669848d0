// SPDX-License-Identifier: Apache-2.0
// Run by tests in a changed environment: starts a dataplane and prints how that went, as JSON.
import { codeOf, messageOf } from "../../src/core/errors.ts";
import { startDataplane } from "./lab-dataplane.ts";

startDataplane().then(
  (dataplane) => {
    console.log(JSON.stringify({ tests: dataplane.tests }));
    dataplane.close();
  },
  (error: unknown) => console.log(JSON.stringify({ code: codeOf(error), message: messageOf(error) })),
);
