// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { type Clock, systemClock } from "../core/clock.ts";
import { PLUGIN_SOCKET_MODE, RUN_FILE } from "../core/constants.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { podKey } from "../core/pod.ts";
import type { CniHandler, CniPodRequest, CniVerdict } from "../core/ports/cni.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Logger, Metrics } from "../core/ports/telemetry.ts";
import { readBody, respond, UnixHttpServer } from "../sys/unix-http.ts";
import { cniError } from "./cni-error.ts";
import type { NetnsHandover } from "./handover.ts";
import { parseOwnRequest, parseUpstreamRequest } from "./request.ts";

export interface CniServerOptions {
  /** CNI_AGENT_RUN_DIR; created when missing. */
  readonly runDir: string;
  readonly handler: CniHandler;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Where plugins hand over a netns whose path leads nowhere here; without one they aren't asked to. */
  readonly handover?: Pick<NetnsHandover, "take">;
  readonly clock?: Clock;
  /** Requests in work at once; further ones are told to try again. */
  readonly maxConcurrent?: number;
  /** Time for one request, in ms: less than the plugin waits, so that it hears why. */
  readonly deadlineMs?: number;
}

const BODY_MAX = 64 * 1024;
/** "Precondition Required": the request will come again, with the netns. */
const NETNS_WANTED = 428;
const MAX_CONCURRENT = 256;
/** The plugin gives ADD 15 s and CHECK 5 s (cni/verdict.c), upstream's plugin 5 s. */
const DEADLINE_MS = 14_000;
const SHORT_DEADLINE_MS = 4500;

/** How one path is answered: which body it takes, what is done, and how result and error are written. */
interface Route {
  readonly name: string;
  readonly deadlineMs: number;
  readonly parse: (body: string) => CniPodRequest;
  readonly work: (request: CniPodRequest, signal: AbortSignal) => Promise<CniVerdict | "ok">;
  readonly success: (response: ServerResponse, verdict: CniVerdict | "ok") => void;
  /** Returns the status it sent. `mayHandOver`: the plugin has not been asked for the netns itself yet. */
  readonly failure: (response: ServerResponse, error: unknown, mayHandOver: boolean) => number;
}

/** Serves the CNI plugin, ours and upstream's, on `<run dir>/pluginevent.sock`. */
export class CniServer {
  private readonly http: UnixHttpServer;
  private readonly routes: ReadonlyMap<string, Route>;
  private readonly clock: Clock;
  private readonly logger: Logger;
  private active = 0;

  constructor(private readonly options: CniServerOptions) {
    this.clock = options.clock ?? systemClock;
    this.logger = options.logger.child("cni-server");
    this.http = new UnixHttpServer({
      path: join(options.runDir, RUN_FILE.pluginSocket),
      mode: PLUGIN_SOCKET_MODE,
      listener: (request, response) => void this.answer(request, response),
      failed: (error) => this.logger.error("a plugin's connection could not be accepted", { error: error.message }),
    });
    const { handler } = options;
    const deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    const shortMs = Math.min(deadlineMs, SHORT_DEADLINE_MS);
    const add = (request: CniPodRequest, signal: AbortSignal) => handler.add(request, signal);
    const check = async (request: CniPodRequest, signal: AbortSignal) => {
      await handler.check(request, signal);
      return "ok" as const;
    };
    const own = { parse: parseOwnRequest, success: ownSuccess, failure: ownFailure };
    this.routes = new Map<string, Route>([
      ["/v1/add", { ...own, name: "add", deadlineMs, work: add }],
      ["/v1/check", { ...own, name: "check", deadlineMs: shortMs, work: check }],
      [
        "/cmdadd",
        {
          name: "cmdadd",
          deadlineMs: shortMs,
          parse: parseUpstreamRequest,
          work: add,
          // The agent's word is final: a pod that upstream's plugin took for ambient and we don't, starts.
          success: (response) => respond(response, 200, "text/plain", ""),
          failure: upstreamFailure,
        },
      ],
    ]);
  }

  /** Binds the socket. @throws AgentError and errors of the file system, see UnixHttpServer.listen */
  listen(): Promise<void> {
    return this.http.listen();
  }

  /** Closes the socket and cuts requests in work; their signals are aborted. */
  stop(): Promise<void> {
    return this.http.stop();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url?.split("?", 1)[0] ?? "";
    const route = this.routes.get(path);
    if (route !== undefined) {
      await this.serve(route, request, response);
    } else if (path === "/v1/ping" && request.method === "GET") {
      respond(response, 200, "application/json", JSON.stringify({ agent: "ambient-cni", protocol: 1 }));
    } else {
      this.count(
        ownFailure(response, new AgentError("BAD_REQUEST", `there is nothing at ${path.slice(0, 120)}`), false, 404),
      );
    }
  }

  private async serve(route: Route, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const started = this.clock.now();
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    this.active += 1;
    let pod: string | undefined;
    let outcome = { verdict: "", result: "ok" };
    let handed: NetnsHandle | undefined;
    let mayHandOver = false;
    try {
      if (request.method !== "POST") throw new AgentError("BAD_REQUEST", `${request.method} is not served, POST is`);
      const limit = this.options.maxConcurrent ?? MAX_CONCURRENT;
      if (this.active > limit) throw new AgentError("AGENT_BUSY", `the agent already works on ${limit} requests`);
      const parsed = route.parse(await readBody(request, BODY_MAX));
      handed = this.options.handover?.take(parsed.containerId);
      mayHandOver = this.options.handover !== undefined && handed === undefined;
      const takeNetns = () => {
        const taken = handed;
        handed = undefined;
        return taken;
      };
      const asked = {
        ...parsed,
        ...(handed === undefined ? {} : { takeNetns }),
        ...(mayHandOver && route.name !== "cmdadd" ? { mayHandOver } : {}),
      };
      pod = podKey({ namespace: parsed.podNamespace, name: parsed.podName });
      const verdict = await this.within(route.deadlineMs, gone, (signal) => route.work(asked, signal));
      route.success(response, verdict);
      // CHECK says nothing of what the pod is.
      outcome = { verdict: verdict === "ok" ? "" : verdict, result: "ok" };
      this.count(200);
      this.logger.debug(`${route.name}: ${verdict}`, { pod, containerId: parsed.containerId });
    } catch (error) {
      const status = response.destroyed ? 499 : route.failure(response, error, mayHandOver);
      // No failure: the plugin comes again at once.
      outcome = { verdict: "", result: status === NETNS_WANTED ? "handover" : codeOf(error) };
      this.count(status);
      this.report(route.name, pod, status, error);
    } finally {
      handed?.close();
      this.active -= 1;
      this.options.metrics.count("ambient_cni_plugin_requests_total", { verb: route.name, ...outcome });
      this.options.metrics.observe("ambient_cni_plugin_request_seconds", (this.clock.now() - started) / 1000, {
        verb: route.name,
      });
    }
  }

  /** Runs the work until it ends, the client leaves or the time is over, whichever is first. */
  private async within<T>(ms: number, gone: AbortController, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const control = new AbortController();
    let stop: (error: AgentError) => void = () => undefined;
    const stopped = new Promise<never>((_, reject) => {
      stop = (error) => {
        control.abort(error);
        reject(error);
      };
    });
    const leave = () => stop(new AgentError("REQUEST_ABORTED", "the plugin closed the connection"));
    const cancel = this.clock.after(ms, () =>
      stop(
        new AgentError(
          "AGENT_TIMEOUT",
          `the agent was not done within ${ms} ms`,
          "see the agent's log for what it waits for",
        ),
      ),
    );
    gone.signal.addEventListener("abort", leave);
    if (gone.signal.aborted) leave();
    try {
      return await Promise.race([work(control.signal), stopped]);
    } finally {
      cancel();
      gone.signal.removeEventListener("abort", leave);
    }
  }

  private report(route: string, pod: string | undefined, status: number, error: unknown): void {
    const fields = { pod, status, error: messageOf(error) };
    if (status === NETNS_WANTED) this.logger.debug(`${route}: the plugin is asked for the netns itself`, fields);
    else if (error instanceof AgentError) this.logger.warn(`${route} failed`, { ...fields, code: error.code });
    else this.logger.error(`${route} failed`, { ...fields, stack: error instanceof Error ? error.stack : undefined });
  }

  private count(status: number): void {
    this.options.metrics.count("istio_cni_plugin_requests_total", { response_code: String(status) });
  }
}

function ownSuccess(response: ServerResponse, verdict: CniVerdict | "ok"): void {
  respond(response, 200, "application/json", JSON.stringify({ verdict }));
}

function ownFailure(response: ServerResponse, error: unknown, mayHandOver: boolean, status?: number): number {
  const { status: usual, code, msg, details, away, handOver } = cniError(error);
  const asksNetns = handOver && mayHandOver;
  const sent = asksNetns ? NETNS_WANTED : (status ?? usual);
  const body = { code, msg, details, ...(away ? { away } : {}), ...(asksNetns ? { handOver } : {}) };
  respond(response, sent, "application/json", JSON.stringify(body));
  return sent;
}

/** Upstream: 400 with text for a body it can't read, 500 with text for everything else. */
function upstreamFailure(response: ServerResponse, error: unknown): number {
  const { status: usual, msg, details } = cniError(error);
  const status = usual === 400 || usual === 413 ? 400 : 500;
  respond(response, status, "text/plain", details === undefined ? msg : `${msg}: ${details}`);
  return status;
}
