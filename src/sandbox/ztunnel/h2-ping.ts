// SPDX-License-Identifier: Apache-2.0
import type { Http2Session } from "node:http2";

const INTERVAL_MS = 10_000;
const TIMEOUT_MS = 20_000;

/**
 * Pings the peer of an HTTP/2 connection as ztunnel does, and destroys the connection when no answer comes
 * within 20 s: a pod whose netns was torn down says no goodbye.
 */
export function keepAsking(session: Http2Session): void {
  let timer: NodeJS.Timeout | undefined;
  const wait = (ms: number, then: () => void) => {
    clearTimeout(timer);
    timer = setTimeout(then, ms);
    timer.unref();
  };
  const ask = () => {
    if (session.destroyed) return;
    wait(TIMEOUT_MS, () => session.destroy());
    session.ping((error) => {
      if (error === null && !session.destroyed) wait(INTERVAL_MS, ask);
    });
  };
  wait(INTERVAL_MS, ask);
  session.once("close", () => clearTimeout(timer));
}
