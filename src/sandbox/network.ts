// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from "node:fs";

export const BRIDGE = "cni0";
/** Nodes of one cluster: they are joined by one cable. */
export const MAX_NODES = 2;

/** Addresses of one node of a cluster, and of its pods. */
export interface NodeNetwork {
  readonly node: string;
  readonly pods4: string;
  readonly pods6: string;
  /** The node as its pods see it, once there has been a pod. */
  readonly gateway4: string;
  readonly gateway6: string;
  /** The node as the other one sees it. */
  readonly uplink4: string;
  readonly uplink6: string;
}

/** @throws Error for a node that can't be (counted from 0) */
export function nodeNetwork(index: number): NodeNetwork {
  if (!Number.isInteger(index) || index < 0 || index >= MAX_NODES) throw new Error(`no node ${index}`);
  const pods6 = index === 0 ? "fd66::" : `fd66:0:0:${index}::`;
  return {
    node: `node${index + 1}`,
    pods4: `10.66.${index}.0/24`,
    pods6: `${pods6}/64`,
    gateway4: `10.66.${index}.1`,
    gateway6: `${pods6}1`,
    uplink4: `192.168.66.${index + 1}`,
    uplink6: `fd66:0:0:ff::${index + 1}`,
  };
}

/** The node's primary CNI configuration: Debian's bridge and host-local plugins, dual stack. */
export function writePrimaryConf(path: string, dataDir: string, { pods4, pods6 }: NodeNetwork): void {
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
          ranges: [[{ subnet: pods4 }], [{ subnet: pods6 }]],
          routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0" }],
        },
      },
    ],
  };
  writeFileSync(path, `${JSON.stringify(conf, null, 2)}\n`);
}

/** Addresses that host-local gives the `index`th pod of a node (0 = the first): it counts up. */
export function addressesOf(index: number, network: NodeNetwork = nodeNetwork(0)): readonly string[] {
  const host = index + 2;
  return [network.gateway4.replace(/1$/, String(host)), network.gateway6.replace(/1$/, host.toString(16))];
}
