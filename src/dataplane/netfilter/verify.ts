// SPDX-License-Identifier: Apache-2.0

import { VERIFY_MARK } from "../../core/constants.ts";
import { AgentError, messageOf } from "../../core/errors.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { NOBODY } from "../nobody.ts";

const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;
const TIMEOUT_MS = 1000;

/**
 * One connection per family from inside the netns to an address that is nobody's. Its mark leads it to
 * lo by the policy rule, and there only the table's `verify` rule can turn it to our listener. So it
 * proves that rule, route, NAT hook and conntrack work in this very netns, about 0.5 ms, and ztunnel
 * never sees it. That the other rules do what they should was proved in the self-test; that they are
 * the same ones, by their digests.
 * @throws AgentError VERIFY_FAILED.
 */
export async function verifyCapture(
  binding: NativeBinding,
  netns: number,
  families: readonly AddressFamily[],
): Promise<void> {
  for (const family of families) {
    const listener = binding.tcpListen(netns, { family, bind: { address: LOOPBACK[family], port: 0 }, backlog: 1 });
    try {
      const { port } = binding.localEndpoint(listener);
      const connection = await binding.tcpConnect(netns, {
        family,
        // Without it the kernel takes the destination for the source, which is no address of the netns.
        bind: { address: LOOPBACK[family], port: 0 },
        address: NOBODY[family],
        port,
        mark: VERIFY_MARK.netfilter,
        timeout: TIMEOUT_MS,
      });
      binding.close(connection);
    } catch (error) {
      throw new AgentError(
        "VERIFY_FAILED",
        `a verification connection over IPv${family} inside the pod's netns was not redirected: ${messageOf(error)}`,
        "look for other firewall rules inside the pod that drop traffic on lo",
        { cause: error },
      );
    } finally {
      binding.close(listener);
    }
  }
}
