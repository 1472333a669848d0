// SPDX-License-Identifier: Apache-2.0
import { SPREAD_RANGE, VERIFY_MARK } from "../../core/constants.ts";
import { AgentError, codeOf } from "../../core/errors.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";

/** Documentation addresses (RFC 5737, RFC 3849): nobody's, and never left for, see below. */
const NOBODY = { 4: "192.0.2.1", 6: "2001:db8::1" } as const;
const ANY = { 4: "0.0.0.0", 6: "::" } as const;
const TIMEOUT_MS = 1000;

/**
 * Two connections per family from inside the netns, unseen by ztunnel. The first is meant for nobody's
 * address, and only the connect program can turn it to our listener: the pod's entry is in force. The
 * second is meant for a spread address, where our wildcard listener would answer if the sk_lookup program
 * did not refuse: local route and program are in force. @throws AgentError VERIFY_FAILED.
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
    const connect = (address: string) =>
      binding.tcpConnect(netns, { family, address, port, mark: VERIFY_MARK.ebpf, timeout: TIMEOUT_MS }).then(
        (fd) => {
          binding.close(fd);
          return "connected";
        },
        (error: unknown) => codeOf(error),
      );
    const [spread = ""] = SPREAD_RANGE[family].split("/");
    const [turned, refused] = await Promise.all([connect(NOBODY[family]), connect(spread)]);
    if (turned !== "connected") throw failed(family, `was not turned by the connect program: ${turned}`);
    if (refused !== "ECONNREFUSED") {
      throw failed(family, `to an address of ztunnel's was not refused by the sk_lookup program: ${refused}`);
    }
  } finally {
    binding.close(listener);
  }
}

function failed(family: AddressFamily, how: string): AgentError {
  return new AgentError(
    "VERIFY_FAILED",
    `a verification connection over IPv${family} inside the pod's netns ${how}`,
    "look for another tool's programs on the cgroup of all pods",
  );
}
