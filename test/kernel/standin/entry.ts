// SPDX-License-Identifier: Apache-2.0
// The stand-in ztunnel as the tests start it: from the sources, in a process of its own.
import { main } from "../../../src/sandbox/ztunnel/main.ts";

process.exit(await main(process.env));
