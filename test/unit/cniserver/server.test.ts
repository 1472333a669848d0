// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CniServer, type CniServerOptions } from "../../../src/cniserver/server.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { CniHandler, CniPodRequest } from "../../../src/core/ports/cni.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { send, sendRaw } from "../../support/unix-client.ts";

const BODY = {
  containerId: "8a1b",
  netns: "/var/run/netns/cni-1",
  ifName: "eth0",
  podNamespace: "shop",
  podName: "cart-0",
  podUid: "6f0c-1",
  ips: ["10.0.0.2", "FD00:0::2"],
  cniVersion: "1.0.0",
};
const UPSTREAM_BODY = {
  Netns: "/var/run/netns/cni-1",
  PodName: "cart-0",
  PodNamespace: "shop",
  IPs: [
    { Interface: 0, Address: { IP: "10.0.0.2", Mask: "////AA==" }, Gateway: "10.0.0.1" },
    { Interface: null, Address: { IP: "::ffff:10.0.0.3", Mask: "//////////////////////" }, Gateway: "" },
  ],
};

class Handler implements CniHandler {
  readonly requests: CniPodRequest[] = [];
  readonly signals: AbortSignal[] = [];
  work: () => Promise<"ambient" | "none"> = async () => "ambient";

  add(request: CniPodRequest, signal: AbortSignal): Promise<"ambient" | "none"> {
    this.requests.push(request);
    this.signals.push(signal);
    return this.work();
  }
  async check(request: CniPodRequest, signal: AbortSignal): Promise<void> {
    await this.add(request, signal);
  }
}

let dir: ScratchDir;
let handler: Handler;
let logger: LogRecorder;
let metrics: MetricRecorder;
let server: CniServer;
let socket: string;

async function start(options: Partial<CniServerOptions> = {}): Promise<void> {
  server = new CniServer({ runDir: dir.file("run"), handler, logger, metrics, ...options });
  socket = join(dir.file("run"), "pluginevent.sock");
  await server.listen();
}

const post = (path: string, body: unknown) =>
  send(socket, "POST", path, typeof body === "string" ? body : JSON.stringify(body));

beforeEach(() => {
  dir = new ScratchDir();
  handler = new Handler();
  logger = new LogRecorder();
  metrics = new MetricRecorder();
});
afterEach(async () => {
  await server?.stop();
  dir[Symbol.dispose]();
});

describe("the socket", () => {
  it("lies in a directory that only root enters and may be written by any plugin", async () => {
    await start();
    expect(statSync(dir.file("run")).mode & 0o777).toBe(0o750);
    expect(statSync(socket).mode & 0o777).toBe(0o666);
    await server.stop();
    expect(existsSync(socket)).toBe(false);
  });

  it("replaces what a killed agent left, and nothing else", async () => {
    mkdirSync(dir.file("run"));
    const path = join(dir.file("run"), "pluginevent.sock");
    writeFileSync(path, "precious");
    await expect(start()).rejects.toMatchObject({ code: "NOT_A_SOCKET", message: expect.stringContaining(path) });
  });

  it("is bound again over a stale socket", async () => {
    mkdirSync(dir.file("run"));
    const stale = createServer().listen(join(dir.file("run"), "pluginevent.sock"));
    await start();
    expect((await post("/v1/add", BODY)).status).toBe(200);
    stale.close();
  });

  it("refuses a path that the kernel would cut short", async () => {
    const runDir = dir.file("d".repeat(100));
    await expect(start({ runDir })).rejects.toMatchObject({ code: "SOCKET_PATH" });
  });
});

/** Of every request that was counted: verb, verdict and result. */
function outcomes(): string[] {
  const name = "ambient_cni_plugin_requests_total";
  return [...metrics.counts.keys()]
    .filter((key) => key.startsWith(name))
    .map((key) => Object.values(JSON.parse(key.slice(name.length)) as Record<string, string>).join(" "));
}

describe("our protocol", () => {
  it("hands a checked request to the handler and answers with its verdict", async () => {
    await start();
    expect(await post("/v1/add", BODY)).toEqual({ status: 200, body: '{"verdict":"ambient"}' });
    expect(handler.requests).toEqual([
      {
        containerId: "8a1b",
        netns: "/var/run/netns/cni-1",
        ifName: "eth0",
        podNamespace: "shop",
        podName: "cart-0",
        podUid: "6f0c-1",
        ips: ["10.0.0.2", "fd00::2"],
      },
    ]);
    handler.work = async () => "none";
    expect(await post("/v1/add", BODY)).toEqual({ status: 200, body: '{"verdict":"none"}' });
    expect(await post("/v1/check", BODY)).toEqual({ status: 200, body: '{"verdict":"ok"}' });
    expect(metrics.counts.get('istio_cni_plugin_requests_total{"response_code":"200"}')).toBe(3);
    expect(outcomes()).toEqual(["add ambient ok", "add none ok", "check  ok"]);
    expect(metrics.observations).toMatchObject(
      ["add", "add", "check"].map((verb) => ({ name: "ambient_cni_plugin_request_seconds", labels: { verb } })),
    );
  });

  it("takes an empty UID for none", async () => {
    await start();
    await post("/v1/add", { ...BODY, podUid: "" });
    await post("/v1/add", { ...BODY, podUid: undefined });
    expect(handler.requests.map(({ podUid }) => podUid)).toEqual([undefined, undefined]);
  });

  it("answers a ping", async () => {
    await start();
    expect(await send(socket, "GET", "/v1/ping")).toEqual({
      status: 200,
      body: '{"agent":"ambient-cni","protocol":1}',
    });
  });

  it.each<[string, unknown, string]>([
    ["no JSON", "{", "not JSON"],
    ["an array", [], "containerId is missing"],
    ["a string", '"x"', "not an object"],
    ["no pod name", { ...BODY, podName: undefined }, "podName is missing"],
    ["a number for a name", { ...BODY, podName: 7 }, "podName: must be a string, not 7"],
    ["an upper-case name", { ...BODY, podName: "Cart" }, 'podName: "Cart" is not the name of a pod'],
    ["an endless name", { ...BODY, podName: "a".repeat(254) }, "podName"],
    ["a namespace with a dot", { ...BODY, podNamespace: "a.b" }, "podNamespace"],
    ["a namespace with a newline", { ...BODY, podNamespace: "a\n" }, "podNamespace"],
    ["a relative netns", { ...BODY, netns: "run/netns" }, "netns"],
    ["a netns that steps back", { ...BODY, netns: "/var/../etc" }, "netns"],
    ["a netns with NUL", { ...BODY, netns: "/var/\u0000" }, "netns"],
    ["an interface with a slash", { ...BODY, ifName: "a/b" }, "ifName"],
    ["an interface of 16 bytes", { ...BODY, ifName: "a".repeat(16) }, "ifName"],
    ["a bad UID", { ...BODY, podUid: "a b" }, "podUid"],
    ["a container id that is a path", { ...BODY, containerId: "../x" }, "containerId"],
    ["a bad address", { ...BODY, ips: ["10.0.0.2", "10.0.0.256"] }, 'ips.1: "10.0.0.256" is not an IP address'],
    ["addresses that are no list", { ...BODY, ips: "10.0.0.2" }, "ips: must be an array"],
    ["too many addresses", { ...BODY, ips: Array(65).fill("10.0.0.2") }, "ips: holds 65 addresses"],
  ])("refuses %s by name", async (_what, body, expected) => {
    await start();
    const answer = await post("/v1/add", body);
    expect(answer.status).toBe(400);
    const error = JSON.parse(answer.body);
    expect(error.code).toBe(6);
    expect(error.msg).toContain(expected);
    expect(handler.requests).toEqual([]);
    expect(metrics.counts.get('istio_cni_plugin_requests_total{"response_code":"400"}')).toBe(1);
    expect(outcomes()).toEqual(["add  BAD_REQUEST"]);
  });

  it("refuses bodies beyond its bound, other methods and other paths", async () => {
    await start();
    expect((await post("/v1/add", "x".repeat(70_000))).status).toBe(413);
    expect((await send(socket, "POST", "/v1/add", Buffer.from([0xff, 0xfe]))).status).toBe(400);
    expect((await send(socket, "GET", "/v1/add")).status).toBe(400);
    expect((await post("/v2/add", BODY)).status).toBe(404);
    expect(await sendRaw(socket, "garbage\r\n\r\n")).toContain("400");
    expect((await post("/v1/add", BODY)).status).toBe(200);
  });
});

describe("a slow sender", () => {
  it("is cut off, whether its head or its body doesn't end, and the others are served meanwhile", async () => {
    await start();
    const slow = [
      sendRaw(socket, "POST /v1/add HTTP/1.1\r\nHost: a\r\n"),
      sendRaw(socket, "POST /v1/add HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"),
    ];
    expect((await post("/v1/add", BODY)).status).toBe(200);
    for (const answer of await Promise.all(slow)) expect(answer).toMatch(/^(HTTP\/1.1 408 |$)/);
    expect(handler.requests).toHaveLength(1);
  });
});

describe("errors of the handler", () => {
  it.each<[unknown, number, object]>([
    [
      new AgentError("NO_ZTUNNEL", "no ztunnel is connected", "start ztunnel"),
      503,
      { code: 11, msg: "no ztunnel is connected (NO_ZTUNNEL)", details: "start ztunnel" },
    ],
    [new AgentError("AGENT_STARTING", "starting"), 503, { code: 11, msg: "starting (AGENT_STARTING)", away: true }],
    [new AgentError("KUBE_TIMEOUT", "slow"), 503, { code: 11, msg: "slow (KUBE_TIMEOUT)" }],
    [
      new AgentError("ANNOTATION_INVALID", "wrong", "allowed is less"),
      500,
      { code: 107, msg: "wrong (ANNOTATION_INVALID)", details: "allowed is less" },
    ],
    [new AgentError("NETNS_IS_HOST", "host"), 500, { code: 104, msg: "host (NETNS_IS_HOST)" }],
    [new AgentError("SOMETHING_NEW", "hm"), 500, { code: 100, msg: "hm (SOMETHING_NEW)" }],
  ])("%s", async (error, status, expected) => {
    await start();
    handler.work = () => Promise.reject(error);
    const answer = await post("/v1/add", BODY);
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.body)).toEqual(expected);
    expect(logger.lines.at(-1)).toMatchObject({ level: "warn", fields: { pod: "shop/cart-0", status } });
  });

  it("a defect is code 100, with its stack in the log", async () => {
    await start();
    handler.work = () => Promise.reject(new TypeError("x is undefined"));
    const answer = await post("/v1/add", BODY);
    expect(JSON.parse(answer.body)).toMatchObject({ code: 100, msg: "the agent failed: x is undefined" });
    expect(logger.lines.at(-1)).toMatchObject({
      level: "error",
      fields: { stack: expect.stringContaining("TypeError") },
    });
  });

  it("a handler that doesn't end is given up and told so", async () => {
    await start({ deadlineMs: 50 });
    handler.work = () => new Promise(() => undefined);
    const answer = await post("/v1/add", BODY);
    expect(answer.status).toBe(503);
    expect(JSON.parse(answer.body)).toMatchObject({ code: 11, msg: expect.stringContaining("AGENT_TIMEOUT") });
    expect(handler.signals[0]?.aborted).toBe(true);
  });

  it("a plugin that leaves aborts the work", async () => {
    await start();
    const client = new AbortController();
    let begun: () => void = () => undefined;
    const working = new Promise<void>((resolve) => {
      begun = resolve;
    });
    handler.work = () => {
      begun();
      return new Promise(() => undefined);
    };
    const answer = send(socket, "POST", "/v1/add", JSON.stringify(BODY), client.signal);
    await working;
    const aborted = new Promise<void>((resolve) => handler.signals[0]?.addEventListener("abort", () => resolve()));
    client.abort();
    await expect(answer).rejects.toThrow();
    await aborted;
    expect(handler.signals[0]?.reason).toMatchObject({ code: "REQUEST_ABORTED" });
  });

  it("more requests than allowed at once are told to try again", async () => {
    await start({ maxConcurrent: 2 });
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    let begun = 0;
    const bothBegun = new Promise<void>((resolve) => {
      handler.work = async () => {
        begun += 1;
        if (begun === 2) resolve();
        await gate;
        return "ambient";
      };
    });
    const first = [post("/v1/add", BODY), post("/v1/add", BODY)];
    await bothBegun;
    const refused = await post("/v1/add", BODY);
    expect(refused.status).toBe(503);
    expect(JSON.parse(refused.body)).toMatchObject({ code: 11, msg: expect.stringContaining("2 requests") });
    release();
    expect((await Promise.all(first)).map(({ status }) => status)).toEqual([200, 200]);
    expect((await post("/v1/add", BODY)).status).toBe(200);
  });
});

describe("upstream's protocol", () => {
  it("is served with an empty body for either verdict", async () => {
    await start();
    expect(await post("/cmdadd", UPSTREAM_BODY)).toEqual({ status: 200, body: "" });
    handler.work = async () => "none";
    expect(await post("/cmdadd", { ...UPSTREAM_BODY, IPs: null })).toEqual({ status: 200, body: "" });
    expect(handler.requests).toEqual([
      {
        containerId: "",
        netns: "/var/run/netns/cni-1",
        ifName: "",
        podNamespace: "shop",
        podName: "cart-0",
        podUid: undefined,
        ips: ["10.0.0.2", "10.0.0.3"],
      },
      expect.objectContaining({ ips: [] }),
    ]);
  });

  it("answers 400 with text to what it can't read, 500 with text to what fails", async () => {
    await start();
    const bad = await post("/cmdadd", { ...UPSTREAM_BODY, PodName: "" });
    expect(bad.status).toBe(400);
    expect(bad.body).toContain("PodName");
    handler.work = () => Promise.reject(new AgentError("NO_ZTUNNEL", "no ztunnel connection", "start ztunnel"));
    const failed = await post("/cmdadd", UPSTREAM_BODY);
    expect(failed).toEqual({ status: 500, body: "no ztunnel connection (NO_ZTUNNEL): start ztunnel" });
    expect(metrics.counts.get('istio_cni_plugin_requests_total{"response_code":"500"}')).toBe(1);
  });
});
