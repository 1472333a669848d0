// SPDX-License-Identifier: Apache-2.0
// The status page: what its server refuses, and what a browser makes of what a node says.
import { execFile } from "node:child_process";
import { request } from "node:http";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { UiServer } from "../../../src/cli/ui/server.ts";
import type { MetricsReport } from "../../../src/core/report/lines.ts";
import type { ReadinessReport } from "../../../src/core/report/readiness.ts";
import { DECISIONS, PODS, podReport, STATUS } from "../../fixtures/reports.ts";
import { cli, withAgent } from "../../support/cli-env.ts";
import { send } from "../../support/unix-client.ts";

const HOSTILE = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
const { source, takenAt, node, schemaVersion } = STATUS;
const HEAD = { source, takenAt, node, schemaVersion };
const READINESS: ReadinessReport = { ...HEAD, missing: [`pod shop/web: ${HOSTILE}`] };
const METRICS: MetricsReport = {
  ...HEAD,
  text: [
    'ambient_cni_verdicts_total{engine="ebpf",verdict="outbound_captured"} 1234',
    'ambient_cni_verdicts_total{engine="nftables",verdict="outbound_captured"} 1',
    'ambient_cni_verdicts_total{engine="ebpf",verdict="inbound_hbone"} 7',
  ].join("\n"),
};
const DOCUMENTS = {
  status: {
    ...STATUS,
    problems: [{ object: HOSTILE, code: "<b>CODE</b>", message: HOSTILE, attempts: 1, nextTryMs: null }],
  },
  pods: { ...PODS, pods: [...PODS.pods, podReport(HOSTILE, { detail: HOSTILE, mesh: "none", reason: HOSTILE })] },
  decisions: DECISIONS,
  readiness: READINESS,
  metrics: METRICS,
};

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

function ask(
  url: string,
  { method = "GET", headers = {} }: { method?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers, agent: false }, (incoming) => {
      let body = "";
      incoming.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      incoming.on("end", () => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body }));
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
}

/** What a headless browser has made of the page once it was drawn. */
function rendered(url: string, ms = 1500): Promise<string> {
  const argv = ["--headless", "--no-sandbox", "--disable-gpu", `--virtual-time-budget=${ms}`, "--dump-dom", url];
  return new Promise((resolve, reject) => {
    execFile("chromium-headless-shell", argv, { timeout: 30_000, maxBuffer: 16 << 20 }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(error);
    });
  });
}

describe("its server", () => {
  let server: UiServer;
  let url: string;
  const asked: string[] = [];
  beforeEach(async () => {
    asked.length = 0;
    server = new UiServer({
      port: 0,
      read: async (name) => {
        asked.push(name);
        if (name === "metrics") throw Object.assign(new Error("the agent is away"), { code: "NEEDS_AGENT" });
        return DOCUMENTS[name];
      },
    });
    url = await server.listen();
  });
  afterEach(() => server.stop());

  test("gives the page with a policy under which nothing of the page's own making runs but its script", async () => {
    const { status, headers, body } = await ask(url);
    expect(status).toBe(200);
    expect(headers["content-security-policy"]).toMatch(
      /^default-src 'none'; script-src 'sha256-[^' ]+'; style-src 'sha256-[^' ]+'; connect-src 'self'; base-uri 'none'; /,
    );
    expect(headers).toMatchObject({ "x-content-type-options": "nosniff", "cache-control": "no-store" });
    expect(body.match(/<script/g)).toHaveLength(1);
    expect(body).not.toMatch(/ on[a-z]+=|javascript:|https?:|innerHTML|insertAdjacent|document\.write|eval\(|style=/);
  });

  test("gives documents, and why there is none", async () => {
    expect(JSON.parse((await ask(`${url}v1/pods`)).body)).toEqual(DOCUMENTS.pods);
    const away = await ask(`${url}v1/metrics`);
    expect([away.status, JSON.parse(away.body)]).toEqual([
      503,
      { error: { code: "NEEDS_AGENT", message: "the agent is away", remedy: null } },
    ]);
    await Promise.all([ask(`${url}v1/pods`), ask(`${url}v1/pods`)]);
    expect(asked).toEqual(["pods", "metrics"]);
  });

  test("refuses other names, other sites, other methods, other paths", async () => {
    const { host, port, origin } = new URL(url);
    expect(host).toBe(`127.0.0.1:${port}`);
    const refused = async (path: string, options: Parameters<typeof ask>[1]) => (await ask(path, options)).status;
    for (const name of ["evil.example", `evil.example:${port}`, "127.0.0.1", `[::1]:${port}`]) {
      expect(await refused(url, { headers: { host: name } }), name).toBe(403);
    }
    expect((await ask(url, { headers: { host: `localhost:${port}` } })).status).toBe(200);
    expect(await refused(url, { headers: { "sec-fetch-site": "cross-site" } })).toBe(403);
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) expect(await refused(url, { method })).toBe(405);
    expect((await ask(url, { method: "HEAD" })).body).toBe("");
    for (const path of [
      "/",
      "/v1/pods",
      "/x/v1/pods",
      `${new URL(url).pathname}v1/config`,
      `${new URL(url).pathname}..`,
    ]) {
      expect(await refused(origin + path, {}), path).toBe(404);
    }
    expect(asked).toEqual([]);
  });
});

test("a browser shows what a node says, names of pods as text, and nothing of it runs", async () => {
  await withAgent(DOCUMENTS, async (socket) => {
    let url = "";
    let dom = "";
    await cli(["ui", "--socket", socket], {
      pause: async () => {
        dom = await rendered(url);
        throw new Error("interrupted");
      },
      wrote: (text) => {
        if (url === "") url = text.trim();
      },
    });
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/[\w-]{22}\/$/);
    expect(dom).toContain("<title>worker-3 - ambient-cni</title>");
    expect(dom).toContain("<td>shop/&lt;img src=x onerror=\"document.title='owned'\"&gt;&lt;script&gt;");
    expect(dom).not.toMatch(/<img|<b>/);
    expect(dom.match(/<script/g)).toHaveLength(1);
    expect(dom).toMatch(/<td>outbound captured<\/td><td><span>1235<\/span><\/td>/);
    expect(dom).toMatch(/id="ready" class="error">not ready: pod shop\/web: &lt;img/);
    expect(dom).toMatch(/id="away" hidden=""/);
    expect(dom.match(/<td>shop\/web-7f4c<\/td>/g)?.length).toBeGreaterThan(1);
  });
});

test("rates are what was counted between two answers, by their own times", async () => {
  let answers = 0;
  const server = new UiServer({
    port: 0,
    freshMs: 0,
    read: async (name) => {
      if (name !== "metrics") return DOCUMENTS[name];
      answers += 1;
      const text = `ambient_cni_verdicts_total{engine="ebpf",verdict="inbound_hbone"} ${answers * 30}`;
      return { ...METRICS, takenAt: new Date(Date.parse(takenAt) + answers * 2000).toISOString(), text };
    },
  });
  try {
    expect(await rendered(await server.listen(), 5000)).toMatch(
      /<td>inbound hbone<\/td><td><span>\d+<\/span><\/td><td><span>15.0\/s</,
    );
    expect(answers).toBeGreaterThan(1);
  } finally {
    await server.stop();
  }
});

test("without the agent the page says so", async () => {
  const server = new UiServer({
    port: 0,
    read: async (name) => {
      if (name !== "status" && name !== "pods") throw new Error(`only the agent knows this (${HOSTILE})`);
      const kernel = { from: "kernel", note: `agent unreachable: ECONNREFUSED ${HOSTILE}` };
      return { ...DOCUMENTS[name], source: kernel, ...(name === "status" ? { version: null } : {}) };
    },
  });
  try {
    const dom = await rendered(await server.listen());
    expect(dom).toMatch(
      /id="away">The agent is away: this is what the kernel shows. agent unreachable: ECONNREFUSED &lt;img/,
    );
    expect(dom).toMatch(/id="verdicts-none">only the agent knows this/);
    expect(dom).not.toContain("<img");
  } finally {
    await server.stop();
  }
});

test("the debug socket has the page too, and hears no web page", async () => {
  await withAgent(DOCUMENTS, async (socket) => {
    const page = await send(socket, "GET", "/");
    expect([page.status, page.body.slice(0, 15)]).toEqual([200, "<!doctype html>"]);
    const status = async (method: string, headers: Record<string, string>) =>
      new Promise<number>((resolve, reject) => {
        const outgoing = request({ socketPath: socket, method, path: "/v1/pods", headers }, (incoming) => {
          incoming.resume();
          resolve(incoming.statusCode ?? 0);
        });
        outgoing.on("error", reject);
        outgoing.end(method === "POST" ? "{}" : undefined);
      });
    expect(await status("GET", { host: "localhost:8080" })).toBe(200);
    expect(await status("GET", { host: "evil.example:8080" })).toBe(403);
    expect(await status("POST", { origin: "http://localhost:8080" })).toBe(403);
    expect(await status("GET", { "sec-fetch-site": "cross-site" })).toBe(403);
    expect(await status("POST", {})).toBe(200);
  });
});
