// SPDX-License-Identifier: Apache-2.0
// Port 15006: plain connections to the pod, redirected here (ztunnel's src/proxy/inbound_passthrough.rs).
import type { Socket } from "node:net";
import { messageOf } from "../../core/errors.ts";
import { ConnectionRecord, logEarlyDeny } from "./connection-record.ts";
import { formatEndpoint } from "./directory.ts";
import { serviceFor } from "./inbound-service.ts";
import type { MeshWorkload } from "./mesh.ts";
import { ioErrorText, peerOf } from "./pod-sockets.ts";
import { CUT, isIllegalPort, type ProxyContext, SELF_CALL } from "./proxy-context.ts";
import { relay } from "./relay.ts";

/** Takes one accepted, paused socket and connects it to where the client wanted to go, with the client's address. */
export function acceptPlaintext(context: ProxyContext, socket: Socket, transparent: boolean): void {
  const { tracker } = context;
  tracker.own(socket);
  tracker.run(serve(context, socket, transparent).finally(() => socket.destroy()));
}

async function serve(context: ProxyContext, socket: Socket, transparent: boolean): Promise<void> {
  const { journal, local, sockets, tracker } = context;
  const client = peerOf(socket);
  if (client === undefined) return;
  const wanted = sockets.originalDestination(socket);
  const deny = (reason: string) => logEarlyDeny(journal, "inbound", client, wanted, reason);
  if (isIllegalPort(wanted.port)) return deny(SELF_CALL);
  let workload: MeshWorkload;
  try {
    workload = await local.get();
  } catch (error) {
    return deny(messageOf(error));
  }
  const { directory } = local.meshFile;
  const record = new ConnectionRecord(journal, {
    direction: "inbound",
    src: client,
    srcWorkload: directory.workloadAt(client.address),
    srcIdentity: undefined,
    dst: wanted,
    dstWorkload: workload,
    dstIdentity: undefined,
    hboneTarget: undefined,
    service: serviceFor(directory, workload, wanted.port),
  });
  const unlist = tracker.list("inbound", {
    src: formatEndpoint(client),
    originalDst: undefined,
    actualDst: formatEndpoint(wanted),
    protocol: "TCP",
  });
  try {
    const upstream = await sockets.connect(wanted, transparent ? client.address : undefined);
    const failure = await relay(socket, tracker.own(upstream), record);
    record.complete(tracker.over ? CUT : failure);
  } catch (error) {
    record.complete(`connection failed: ${ioErrorText(error)}`);
  } finally {
    unlist();
  }
}
