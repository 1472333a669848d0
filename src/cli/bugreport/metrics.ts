// SPDX-License-Identifier: Apache-2.0
import { get } from "node:http";
import { AgentError } from "../../core/errors.ts";

const METRICS_MS = 1000;
const METRICS_MAX_BYTES = 4 << 20;

/** The agent's metrics where it shares its network with us, in its pod: of an agent that does not answer otherwise. */
export async function fetchMetrics(port: number): Promise<string> {
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
