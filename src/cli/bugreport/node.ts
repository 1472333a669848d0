// SPDX-License-Identifier: Apache-2.0
import { get } from "node:http";
import { release, version } from "node:os";
import { readConfDir } from "../../../install/conf-dir.ts";
import type { Config } from "../../core/config/config.ts";
import { AgentError } from "../../core/errors.ts";
import { VERSION } from "../exit.ts";
import type { Collection } from "./collection.ts";

const METRICS_MS = 1000;
const METRICS_MAX_BYTES = 4 << 20;

/** CNI configurations, versions and metrics, as this process finds them. */
export async function collectNode(collection: Collection, config: Config): Promise<void> {
  await collection.attempt("node/cni/", async () => {
    const { files, passedOver } = await readConfDir(config.cniNetDir);
    for (const { name, bytes } of files) await collection.text(`node/cni/${name}`, () => bytes.toString("utf8"));
    for (const { name, reason } of passedOver) collection.fail(`node/cni/${name}`, reason);
  });
  await collection.text("node/versions.txt", () =>
    [`ambient-cni ${VERSION}`, `kernel ${release()} ${version()}`, `node.js ${process.version}`, ""].join("\n"),
  );
  await collection.text("metrics.txt", () => metrics(config.monitoringPort));
}

/** The agent's metrics, where it shares its network with us: in its pod. */
async function metrics(port: number): Promise<string> {
  if (port === 0) throw new AgentError("NO_METRICS", "the configuration says that there are none");
  const url = `http://127.0.0.1:${port}/metrics`;
  const text = await fetched(url);
  if (!text.includes("istio_cni_")) throw new AgentError("NO_METRICS", `${url} answers, and is not the agent`);
  return text;
}

function fetched(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = get(url, { agent: false, signal: AbortSignal.timeout(METRICS_MS) }, (incoming) => {
      const chunks: Buffer[] = [];
      let total = 0;
      incoming.on("data", (chunk: Buffer) => {
        total += chunk.length;
        if (total > METRICS_MAX_BYTES) incoming.destroy(new Error(`more than ${METRICS_MAX_BYTES} bytes`));
        else chunks.push(chunk);
      });
      incoming.on("error", reject);
      incoming.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    });
    outgoing.on("error", reject);
  });
}
