// SPDX-License-Identifier: Apache-2.0
// A Prometheus of Debian's on a sandbox's node: it scrapes the agent every second and goes with the node.
import { mkdirSync, writeFileSync } from "node:fs";
import { stringify } from "yaml";
import type { SandboxNode } from "../../src/sandbox/node.ts";
import { httpGet } from "../../src/sandbox/probe.ts";
import { until } from "../../src/sandbox/until.ts";
import type { Child } from "../../src/sys/child.ts";

export const SCRAPE_SECONDS = 1;

/** Port on the node's own loopback, where nobody else is. */
const PORT = 9090;
const TIMEOUT_MS = 20_000;

/** One series: its labels, and [Unix time, value] of each of its samples. */
export interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly values: readonly (readonly [seconds: number, value: number])[];
}

export interface Alert {
  readonly name: string;
  readonly state: "pending" | "firing";
  readonly labels: Readonly<Record<string, string>>;
  readonly summary: string;
}

/** Agents by the name of their node, which their series have as `instance`. */
export type Targets = Readonly<Record<string, string>>;

interface Answer<T> {
  readonly status: string;
  readonly error?: string;
  readonly data: T;
}

interface WireAlert {
  readonly state: "pending" | "firing";
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export class Prometheus {
  private constructor(
    private readonly node: SandboxNode,
    private readonly child: Child,
  ) {}

  /** Starts it in the node's network, with alert rules of `rules`; resolves when it answers. */
  static async start(node: SandboxNode, targets: Targets, rules: string): Promise<Prometheus> {
    const directory = node.path("prometheus");
    mkdirSync(directory);
    const seconds = `${SCRAPE_SECONDS}s`;
    const configuration = {
      global: { scrape_interval: seconds, scrape_timeout: seconds, evaluation_interval: seconds },
      rule_files: [rules],
      scrape_configs: [
        {
          job_name: "ambient-cni",
          static_configs: Object.entries(targets).map(([instance, address]) => ({
            targets: [address],
            labels: { instance },
          })),
        },
      ],
    };
    const file = `${directory}/prometheus.yml`;
    writeFileSync(file, stringify(configuration));
    const child = node.spawn([
      "prometheus",
      `--config.file=${file}`,
      `--storage.tsdb.path=${directory}/data`,
      `--web.listen-address=127.0.0.1:${PORT}`,
      "--log.level=warn",
    ]);
    let log = "";
    for (const stream of [child.process.stdout, child.process.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        if (log.length < 65_536) log += chunk.toString();
      });
    }
    const prometheus = new Prometheus(node, child);
    await until("Prometheus is ready", async () => {
      if (!child.running) throw new Error(`Prometheus ended: ${log}`);
      const answer = await httpGet(node.netnsPath, "127.0.0.1", PORT, "/-/ready").catch(() => undefined);
      return answer?.status === 200;
    });
    return prometheus;
  }

  /** Series of an expression between two Unix times, at every so many seconds. @throws Error with Prometheus' own */
  async range(expr: string, start: number, end: number, step: number): Promise<readonly Series[]> {
    const { result } = await this.ask<{ result: readonly { metric: Series["metric"]; values: [number, string][] }[] }>(
      "query_range",
      { query: expr, start: String(start), end: String(end), step: String(step) },
    );
    return result.map(({ metric, values }) => ({
      metric,
      values: values.map(([seconds, value]) => [seconds, Number(value)] as const),
    }));
  }

  /** Values of a label that series of a selector have. */
  labelValues(label: string, selector: string): Promise<readonly string[]> {
    return this.ask(`label/${label}/values`, { "match[]": selector });
  }

  /** Alerts that are pending or firing now. */
  async alerts(): Promise<readonly Alert[]> {
    const { alerts } = await this.ask<{ alerts: readonly WireAlert[] }>("alerts", {});
    return alerts.map(({ state, labels: { alertname = "", ...labels }, annotations }) => ({
      name: alertname,
      state,
      labels,
      summary: annotations.summary ?? "",
    }));
  }

  /** What went wrong in the last evaluation of each rule that did. */
  async ruleErrors(): Promise<readonly string[]> {
    const { groups } = await this.ask<{
      groups: readonly { rules: readonly { name: string; health: string; lastError?: string }[] }[];
    }>("rules", {});
    return groups.flatMap(({ rules }) =>
      rules.flatMap(({ name, health, lastError }) =>
        health === "ok" ? [] : [`${name}: ${health} ${lastError ?? ""}`],
      ),
    );
  }

  async end(): Promise<void> {
    await this.child.end();
  }

  private async ask<T>(what: string, parameters: Readonly<Record<string, string>>): Promise<T> {
    const path = `/api/v1/${what}?${new URLSearchParams(parameters)}`;
    const { body } = await httpGet(this.node.netnsPath, "127.0.0.1", PORT, path, TIMEOUT_MS);
    const answer = JSON.parse(body) as Answer<T>;
    if (answer.status !== "success") throw new Error(`Prometheus refuses ${path}: ${answer.error ?? body}`);
    return answer.data;
  }
}
