// SPDX-License-Identifier: Apache-2.0
import { VERIFY_MARK } from "../../core/constants.ts";
import { AgentError, codeOf } from "../../core/errors.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { NOBODY } from "../nobody.ts";

const ANY = { 4: "0.0.0.0", 6: "::" } as const;
const TIMEOUT_MS = 1000;

/**
 * One connection per family from inside the netns, unseen by ztunnel. It is meant for nobody's address, at
 * the port of a listener of our own that answers on every address. The connect program turns it to an
 * address of ztunnel's, where the sk_lookup program has to refuse it. Without the one it is answered: the
 * policy rule leads it to `lo`, where every address is local then; without the other too: the address is
 * local. @throws AgentError VERIFY_FAILED.
 */
export async function verifyCapture(
  binding: NativeBinding,
  netns: number,
  families: readonly AddressFamily[],
): Promise<void> {
  await Promise.all(families.map((family) => verifyFamily(binding, netns, family)));
}

async function verifyFamily(binding: NativeBinding, netns: number, family: AddressFamily): Promise<void> {
  const listener = binding.tcpListen(netns, { family, bind: { address: ANY[family], port: 0 }, backlog: 2 });
  try {
    const { port } = binding.localEndpoint(listener);
    const options = { family, address: NOBODY[family], port, mark: VERIFY_MARK.ebpf, timeout: TIMEOUT_MS };
    const outcome = await binding.tcpConnect(netns, options).then(
      (fd) => {
        binding.close(fd);
        return "connected";
      },
      (error: unknown) => codeOf(error),
    );
    if (outcome !== "ECONNREFUSED") throw failed(family, outcome);
  } finally {
    binding.close(listener);
  }
}

function failed(family: AddressFamily, outcome: string): AgentError {
  return new AgentError(
    "VERIFY_FAILED",
    `a verification connection over IPv${family} inside the pod's netns was not led to ztunnel's address and refused there: ${outcome}`,
    "look for another tool's programs on the cgroup of all pods",
  );
}
