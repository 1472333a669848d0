// SPDX-License-Identifier: Apache-2.0
import { VERIFY_MARK } from "../../core/constants.ts";
import { AgentError, messageOf } from "../../core/errors.ts";
import { type Family, familyOf } from "../../core/ip.ts";
import type { Redirection } from "../../core/redirection.ts";
import type { NativeBinding } from "../../native/binding.ts";

const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;
/** What the pod's own check (istio-validation) connects to. */
const PASSTHROUGH = { 4: "127.0.0.6", 6: "::6" } as const;
const TIMEOUT_MS = 1000;

/**
 * Real connections inside the netns, about 0.5 ms each, that the rules named `verify` send to a listener of
 * ours which they would not reach otherwise: NAT from 127.0.0.1 to 127.0.0.6, as the pod's own check does,
 * and in TPROXY mode one to the pod's address by the transparent way, policy rule and route included. Ours
 * don't pass for the proxy's, whose user we can't become: that the other rules do what they should was
 * proved in the self-test, that they are the same ones by their digests.
 * @throws AgentError VERIFY_FAILED.
 */
export async function verifyRedirection(
  binding: NativeBinding,
  netns: number,
  redirection: Redirection,
): Promise<void> {
  for (const family of redirection.families) {
    await connectThrough(binding, netns, family, PASSTHROUGH[family], "redirected");
    if (redirection.deliver === undefined) continue;
    const own = ownAddress(binding, netns, family);
    if (own !== undefined) await connectThrough(binding, netns, family, own, "delivered transparently");
  }
}

/** The listener is on loopback alone: without the rules, nobody answers on `to`. */
async function connectThrough(
  binding: NativeBinding,
  netns: number,
  family: Family,
  to: string,
  how: string,
): Promise<void> {
  const transparent = how !== "redirected";
  const listener = binding.tcpListen(netns, {
    family,
    bind: { address: LOOPBACK[family], port: 0 },
    backlog: 1,
    transparent,
  });
  try {
    const { port } = binding.localEndpoint(listener);
    const connection = await binding.tcpConnect(netns, {
      family,
      ...(transparent ? {} : { bind: { address: LOOPBACK[family], port: 0 } }),
      address: to,
      port,
      mark: VERIFY_MARK.netfilter,
      timeout: TIMEOUT_MS,
    });
    binding.close(connection);
  } catch (error) {
    throw new AgentError(
      "VERIFY_FAILED",
      `a verification connection to ${to} inside the pod's netns was not ${how}: ${messageOf(error)}`,
      "look for other firewall rules inside the pod that drop traffic on lo",
      { cause: error },
    );
  } finally {
    binding.close(listener);
  }
}

/** An address of the pod that others reach it by. */
function ownAddress(binding: NativeBinding, netns: number, family: Family): string | undefined {
  return binding
    .addresses(netns)
    .filter(({ scope }) => scope === "global")
    .map(({ address }) => address)
    .find((address) => familyOf(address) === family && address !== PASSTHROUGH[family]);
}
