// SPDX-License-Identifier: Apache-2.0
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { CAPTURE_SPEC } from "../../fixtures/capture-spec.ts";

export interface ScratchPod {
  readonly netns: HeldNetns;
  readonly spec: CaptureSpec;
}

/** Pods with addresses of their own, each on a veth pair to one scratch node. */
export class ScratchPods implements Disposable {
  readonly #node = createNetns();
  readonly pods: readonly ScratchPod[];

  constructor(count: number) {
    this.pods = Array.from({ length: count }, (_, index) => this.#create(index));
  }

  close(): void {
    for (const { netns } of this.pods) netns.close();
    this.#node.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #create(index: number): ScratchPod {
    const netns = createNetns();
    const outside = `veth${index}`;
    native().vethAdd(this.#node.fd, outside, "eth0", netns.fd);
    native().linkUp(this.#node.fd, outside);
    native().linkUp(netns.fd, "eth0");
    const number = index + 2;
    const ipv4 = `10.66.${number >> 8}.${number & 255}`;
    const ipv6 = `fd66::${number.toString(16)}`;
    native().addressAdd(netns.fd, "eth0", ipv4, 16);
    native().addressAdd(netns.fd, "eth0", ipv6, 64);
    return {
      netns,
      spec: {
        ...CAPTURE_SPEC,
        uid: `0f0e0d0c-0000-4000-8000-${number.toString(16).padStart(12, "0")}`,
        pod: `bench/p${index}`,
        ips: [ipv4, ipv6],
      },
    };
  }
}
