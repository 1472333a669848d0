// SPDX-License-Identifier: Apache-2.0
import { codeOf } from "../core/errors.ts";
import type { AddressFamily, NativeBinding } from "../native/binding.ts";
import { createNetns, type HeldNetns } from "../native/netns.ts";

const ADDRESS = {
  pod: { 4: "192.0.2.2", 6: "2001:db8:0:1::2" },
  remote: { 4: "192.0.2.3", 6: "2001:db8:0:1::3" },
} as const;
const PREFIX = { 4: 24, 6: 64 } as const;

/** A pod and a remote host on one veth pair: two anonymous netns, gone with their fds. */
export class ScratchPair implements Disposable {
  /** Families that this kernel gave the pair. */
  readonly families: readonly AddressFamily[];

  private constructor(
    readonly pod: HeldNetns,
    readonly remote: HeldNetns,
    families: readonly AddressFamily[],
  ) {
    this.families = families;
  }

  /** @throws NativeError when namespaces or veth can't be made. */
  static create(binding: NativeBinding): ScratchPair {
    const pod = createNetns();
    let remote: HeldNetns | undefined;
    try {
      remote = createNetns();
      binding.vethAdd(pod.fd, "eth0", "eth0", remote.fd);
      binding.linkUp(pod.fd, "eth0");
      binding.linkUp(remote.fd, "eth0");
      const families: AddressFamily[] = [];
      for (const family of [4, 6] as const) {
        try {
          binding.addressAdd(pod.fd, "eth0", ADDRESS.pod[family], PREFIX[family]);
          binding.addressAdd(remote.fd, "eth0", ADDRESS.remote[family], PREFIX[family]);
          families.push(family);
        } catch (error) {
          // A kernel without IPv6 says EAFNOSUPPORT or EOPNOTSUPP, one with disable_ipv6=1 EACCES.
          if (family === 4 || !["EAFNOSUPPORT", "EOPNOTSUPP", "EACCES"].includes(codeOf(error))) throw error;
        }
      }
      return new ScratchPair(pod, remote, families);
    } catch (error) {
      pod.close();
      remote?.close();
      throw error;
    }
  }

  podIp(family: AddressFamily): string {
    return ADDRESS.pod[family];
  }

  remoteIp(family: AddressFamily): string {
    return ADDRESS.remote[family];
  }

  close(): void {
    this.pod.close();
    this.remote.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
