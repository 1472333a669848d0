// SPDX-License-Identifier: Apache-2.0
// The Container Runtime Interface over a unix socket: what kubelet speaks with containerd and CRI-O.
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { GenService } from "@bufbuild/protobuf/codegenv2";
import { Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { RuntimeService } from "../gen/cri_pb.ts";

type Methods = typeof RuntimeService extends GenService<infer M> ? M : never;
export type CriMethod = keyof Methods;
type Input<M extends CriMethod> = MessageInitShape<Methods[M]["input"]>;
type Output<M extends CriMethod> = MessageShape<Methods[M]["output"]>;

/** Kubelet's own bound for all but waiting calls (--runtime-request-timeout); RunPodSandbox has twice that. */
const DEADLINE_MS = 120_000;

/** A call that the runtime refused or did not answer. */
export class CriError extends Error {
  override readonly name = "CriError";
  constructor(
    readonly method: string,
    /** gRPC's name of the status, such as UNKNOWN, NOT_FOUND, UNAVAILABLE. */
    readonly code: string,
    readonly details: string,
  ) {
    super(`${method}: ${code}: ${details}`);
  }
}

export class CriClient {
  private readonly client: Client;

  constructor(socket: string) {
    this.client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      // The runtime is restarted under us; kubelet asks again within a second, too.
      "grpc.initial_reconnect_backoff_ms": 50,
      "grpc.max_reconnect_backoff_ms": 200,
    });
  }

  /** One call. @throws CriError with the runtime's own words */
  call<M extends CriMethod>(method: M, request: Input<M>, deadlineMs = DEADLINE_MS): Promise<Output<M>> {
    const { name, input, output } = RuntimeService.method[method] as {
      name: string;
      input: DescMessage;
      output: DescMessage;
    };
    return new Promise((resolve, reject) => {
      this.client.makeUnaryRequest(
        `/${RuntimeService.typeName}/${name}`,
        (message: MessageShape<DescMessage>) => Buffer.from(toBinary(input, message)),
        (bytes: Buffer) => fromBinary(output, bytes),
        create(input, request as MessageInitShape<DescMessage>),
        { deadline: Date.now() + deadlineMs },
        (error: ServiceError | null, answer?: MessageShape<DescMessage>) => {
          if (error !== null) reject(new CriError(name, status[error.code] ?? String(error.code), error.details));
          else resolve(answer as Output<M>);
        },
      );
    });
  }

  close(): void {
    this.client.close();
  }
}
