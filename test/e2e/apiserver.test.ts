// SPDX-License-Identifier: Apache-2.0
// What a person at the playground does, over TLS with a token: by plain requests on every machine,
// and by kubectl itself where one is installed.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import type { ClientRequest } from "node:http";
import { request } from "node:https";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ApiServer } from "../../src/sandbox/apiserver/api-server.ts";
import { ScratchDir } from "../support/scratch-dir.ts";

const run = promisify(execFile);

/** The same deeds by two means. */
interface Person {
  label(namespace: string, key: string, value: string | null): Promise<void>;
  annotate(pod: string, key: string, value: string): Promise<void>;
  podNames(selector: string): Promise<string[]>;
  createNamespace(name: string): Promise<void>;
  deletePod(name: string): Promise<void>;
  /** Rejects with the server's words. */
  breakRules(): Promise<void>;
  /** Calls back with each pod's name as the watch shows it; returns what ends the watch. */
  watchPods(onPod: (name: string) => void): () => Promise<void>;
}

let server: ApiServer;
let scratch: ScratchDir;

beforeEach(async () => {
  scratch = new ScratchDir();
  server = new ApiServer({ accounts: [{ user: "admin", token: "t0ken", rules: "admin" }] });
  await server.start();
  await server.kubeconfig(scratch.file("config"));
  server.put({ kind: "Namespace", metadata: { name: "shop" } });
  for (const name of ["web-0", "web-1", "db-0"]) {
    server.put({
      kind: "Pod",
      metadata: { name, namespace: "shop", labels: { app: name.slice(0, -2) } },
      spec: { nodeName: "node1", containers: [{ name: "app", image: "app" }] },
      status: { phase: "Running" },
    });
  }
});
afterEach(async () => {
  await server.close();
  scratch[Symbol.dispose]();
});

class Requests implements Person {
  async label(namespace: string, key: string, value: string | null): Promise<void> {
    await this.#merge(`/api/v1/namespaces/${namespace}`, { metadata: { labels: { [key]: value } } });
  }
  async annotate(pod: string, key: string, value: string): Promise<void> {
    await this.#merge(`${PODS}/${pod}`, { metadata: { annotations: { [key]: value } } });
  }
  async podNames(selector: string): Promise<string[]> {
    const list = await this.#call("GET", `${PODS}?labelSelector=${encodeURIComponent(selector)}`);
    return (JSON.parse(list) as PodList).items.map(({ metadata }) => metadata.name);
  }
  async createNamespace(name: string): Promise<void> {
    await this.#call("POST", "/api/v1/namespaces", { metadata: { name } });
  }
  async deletePod(name: string): Promise<void> {
    await this.#call("DELETE", `${PODS}/${name}`);
  }
  async breakRules(): Promise<void> {
    await this.label("shop", "bad key", "x");
  }
  watchPods(onPod: (name: string) => void): () => Promise<void> {
    const watching = this.#open("GET", `${PODS}?watch=1&resourceVersion=0`);
    let text = "";
    watching.on("response", (incoming) => {
      incoming.on("error", () => undefined);
      incoming.on("data", (chunk: Buffer) => {
        const lines = (text + chunk.toString()).split("\n");
        text = lines.pop() ?? "";
        for (const line of lines) onPod((JSON.parse(line) as { object: Pod }).object.metadata.name);
      });
    });
    watching.on("error", () => undefined);
    watching.end();
    return async () => void watching.destroy();
  }

  async #merge(path: string, patch: unknown): Promise<void> {
    await this.#call("PATCH", path, patch, "application/merge-patch+json");
  }

  #call(method: string, path: string, body?: unknown, type?: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const outgoing = this.#open(method, path, type);
      outgoing.on("error", reject);
      outgoing.on("response", (incoming) => {
        let text = "";
        incoming.on("data", (chunk: Buffer) => {
          text += chunk.toString();
        });
        incoming.on("end", () => {
          if ((incoming.statusCode ?? 500) < 300) resolve(text);
          else reject(new Error(text));
        });
      });
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  #open(method: string, path: string, type = "application/json"): ClientRequest {
    const headers = { authorization: "Bearer t0ken", "content-type": type };
    return request(new URL(path, server.url), { method, headers, agent: false, ca: server.authority });
  }
}

class Kubectl implements Person {
  readonly #program: string;
  constructor(program: string) {
    this.#program = program;
  }
  async label(namespace: string, key: string, value: string | null): Promise<void> {
    await this.#run("label", "--overwrite", "namespace", namespace, value === null ? `${key}-` : `${key}=${value}`);
  }
  async annotate(pod: string, key: string, value: string): Promise<void> {
    await this.#run("annotate", "-n", "shop", "pod", pod, `${key}=${value}`);
  }
  async podNames(selector: string): Promise<string[]> {
    const names = await this.#run("get", "pods", "-n", "shop", "-l", selector, "-o", "name");
    return names
      .trim()
      .split("\n")
      .map((name) => name.replace("pod/", ""));
  }
  async createNamespace(name: string): Promise<void> {
    await this.#run("create", "namespace", name);
  }
  async deletePod(name: string): Promise<void> {
    await this.#run("delete", "pod", "-n", "shop", name);
  }
  async breakRules(): Promise<void> {
    await this.label("shop", "bad key", "x");
  }
  watchPods(onPod: (name: string) => void): () => Promise<void> {
    const arguments_ = ["get", "pods", "-n", "shop", "-w", "--no-headers"];
    const watching: ChildProcess = spawn(this.#program, arguments_, {
      env: this.#environment(),
      stdio: ["ignore", "pipe", "ignore"],
    });
    let text = "";
    watching.stdout?.on("data", (chunk: Buffer) => {
      const lines = (text + chunk.toString()).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) onPod(line.split(/\s+/)[0] ?? "");
    });
    const ended = new Promise<void>((resolve) => watching.once("exit", () => resolve()));
    return async () => {
      watching.kill("SIGKILL");
      await ended;
    };
  }

  async #run(...arguments_: string[]): Promise<string> {
    const { stdout } = await run(this.#program, arguments_, { env: this.#environment(), timeout: 30_000 });
    return stdout;
  }

  #environment(): NodeJS.ProcessEnv {
    return { PATH: process.env.PATH, KUBECONFIG: scratch.file("config"), HOME: scratch.path };
  }
}

const PODS = "/api/v1/namespaces/shop/pods";
interface Pod {
  readonly metadata: { readonly name: string };
}
interface PodList {
  readonly items: readonly Pod[];
}

function installedKubectl(): Kubectl[] {
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const program = join(directory, "kubectl");
    try {
      accessSync(program, constants.X_OK);
      return [new Kubectl(program)];
    } catch {
      // Not in this directory.
    }
  }
  return [];
}

const people: readonly Person[] = [new Requests(), ...installedKubectl()];

test("a namespace is labelled and unlabelled", async () => {
  for (const person of people) {
    await person.label("shop", "istio.io/dataplane-mode", "ambient");
    expect(server.get("Namespace", undefined, "shop")?.metadata.labels).toHaveProperty(
      ["istio.io/dataplane-mode"],
      "ambient",
    );
    await person.label("shop", "istio.io/dataplane-mode", null);
    expect(server.get("Namespace", undefined, "shop")?.metadata.labels).not.toHaveProperty(["istio.io/dataplane-mode"]);
  }
});

test("a pod is annotated, found by its labels, and deleted", async () => {
  for (const [index, person] of people.entries()) {
    await person.annotate("db-0", `person-${index}`, "here");
    expect(server.get("Pod", "shop", "db-0")?.metadata.annotations).toHaveProperty([`person-${index}`], "here");
    const before = await person.podNames("app=web");
    expect(before).toEqual(["web-0", "web-1"].slice(index));
    await person.deletePod(`web-${index}`);
    expect(server.get("Pod", "shop", `web-${index}`)).toBeUndefined();
  }
});

test("a namespace is created", async () => {
  for (const [index, person] of people.entries()) {
    await person.createNamespace(`new-${index}`);
    expect(server.get("Namespace", undefined, `new-${index}`)?.status).toEqual({ phase: "Active" });
  }
});

test("a label that is none is refused, in words", async () => {
  for (const person of people) await expect(person.breakRules()).rejects.toThrow(/bad key/);
});

test("a watch shows what is there, and then what comes", async () => {
  for (const [index, person] of people.entries()) {
    const seen: string[] = [];
    const stop = person.watchPods((name) => seen.push(name));
    try {
      await until(
        () => new Set(seen).size === 3 + index,
        () => `seen: ${seen}`,
      );
      server.put({ kind: "Pod", metadata: { name: `late-${index}`, namespace: "shop" } });
      await until(
        () => seen.includes(`late-${index}`),
        () => `seen: ${seen}`,
      );
    } finally {
      await stop();
    }
  }
});

async function until(condition: () => boolean, otherwise: () => string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(otherwise());
    await sleep(10);
  }
}
