// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import { ZDS_ACK_TIMEOUT_MS } from "../core/constants.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type { Metrics } from "../core/ports/telemetry.ts";
import type { SeqpacketConnection } from "../native/binding.ts";
import { decodeAck } from "./codec.ts";
import { deadline } from "./deadline.ts";
import type { Datagram, Frame, Outcome } from "./frame.ts";

export interface LockStepOptions {
  readonly connection: SeqpacketConnection;
  readonly clock: Clock;
  readonly metrics: Metrics;
  /** The frame whose turn it is; undefined when there is nothing to send now. */
  readonly next: () => Frame | undefined;
  /** The connection can't go on. The owner closes it and calls `abandon`. */
  readonly failed: (reason: "send_error" | "ack_timeout", detail: string) => void;
}

/**
 * One message at a time: an ack carries no name, so it belongs to the only message that waits for one.
 * A message that gets no ack in time ends the connection, for its late ack would be taken for another's.
 */
export class LockStep {
  readonly #options: LockStepOptions;
  #inFlight: Frame | undefined;
  #sentAt = 0;
  #cancelDeadline: Stop = () => {};
  #ended = false;

  constructor(options: LockStepOptions) {
    this.#options = options;
  }

  get inFlight(): Frame | undefined {
    return this.#inFlight;
  }

  /** Sends what is due, unless an ack is awaited. */
  pump(): void {
    while (!this.#ended && this.#inFlight === undefined) {
      const frame = this.#options.next();
      if (frame === undefined) return;
      this.#send(frame);
    }
  }

  /** Credits one response to the message in flight. @throws Error when it is no ack. */
  acknowledge(response: Uint8Array): void {
    const error = decodeAck(response);
    this.#options.metrics.observe("ambient_cni_zds_ack_seconds", (this.#options.clock.now() - this.#sentAt) / 1000, {
      type: this.#inFlight?.type ?? "none",
    });
    this.#settle(error === "" ? { result: "acked" } : { result: "refused", reason: error });
    this.pump();
  }

  /** The connection is over: nothing more is sent, the message in flight is lost. */
  abandon(timeout: boolean): void {
    this.#ended = true;
    this.#settle({ result: "lost", timeout });
  }

  #send(frame: Frame): void {
    let datagram: Datagram;
    try {
      datagram = frame.build();
    } catch (error) {
      const fault = error instanceof AgentError ? error : new AgentError("ZDS_MESSAGE", messageOf(error));
      this.#count(frame, "unsent");
      frame.done({ result: "unsent", error: fault });
      return;
    }
    const { connection, clock, failed } = this.#options;
    this.#inFlight = frame;
    this.#sentAt = clock.now();
    this.#cancelDeadline = deadline(clock, ZDS_ACK_TIMEOUT_MS, () =>
      failed("ack_timeout", `no ack of ${frame.type} ${frame.uid} within ${ZDS_ACK_TIMEOUT_MS} ms`),
    );
    try {
      connection.send(datagram.message, datagram.fd);
    } catch (error) {
      failed("send_error", messageOf(error));
    }
  }

  #settle(outcome: Outcome): void {
    const frame = this.#inFlight;
    if (frame === undefined) return;
    this.#inFlight = undefined;
    this.#cancelDeadline();
    this.#count(frame, outcome.result === "lost" && outcome.timeout ? "timeout" : outcome.result);
    frame.done(outcome);
  }

  #count(frame: Frame, result: string): void {
    this.#options.metrics.count("ambient_cni_zds_messages_total", { type: frame.type, result });
  }
}
