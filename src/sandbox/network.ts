// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from "node:fs";

export const BRIDGE = "cni0";
const PREFIX4 = "10.66.0";
const PREFIX6 = "fd66";
/** The node as its pods see it, once there has been a pod. */
export const GATEWAY4 = `${PREFIX4}.1`;

/** The node's primary CNI configuration: Debian's bridge and host-local plugins, dual stack. */
export function writePrimaryConf(path: string, dataDir: string): void {
  const conf = {
    cniVersion: "1.0.0",
    name: "sandbox",
    plugins: [
      {
        type: "bridge",
        bridge: BRIDGE,
        isGateway: true,
        hairpinMode: true,
        ipam: {
          type: "host-local",
          dataDir,
          ranges: [[{ subnet: `${PREFIX4}.0/24` }], [{ subnet: `${PREFIX6}::/64` }]],
          routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0" }],
        },
      },
    ],
  };
  writeFileSync(path, `${JSON.stringify(conf, null, 2)}\n`);
}

/** Addresses that host-local gives the `index`th pod of a node (0 = the first): it counts up. */
export function addressesOf(index: number): readonly string[] {
  const host = index + 2;
  return [`${PREFIX4}.${host}`, `${PREFIX6}::${host.toString(16)}`];
}
