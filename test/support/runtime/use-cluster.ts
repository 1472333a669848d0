// SPDX-License-Identifier: Apache-2.0
import { afterAll, afterEach, beforeAll } from "vitest";
import { type ClusterOptions, RuntimeCluster } from "./cluster.ts";

/**
 * One cluster for all tests of a file, with agent and ztunnel unless `bare`; it leaves nothing behind, or the
 * file fails.
 */
export function useCluster(options: () => ClusterOptions, { bare = false } = {}): () => RuntimeCluster {
  let cluster: RuntimeCluster | undefined;
  beforeAll(async () => {
    cluster = await RuntimeCluster.create(options());
    if (bare) return;
    try {
      await cluster.startAgent();
      await cluster.startZtunnel();
    } catch (error) {
      console.error(cluster.evidence());
      throw error;
    }
  });
  afterEach(({ task }) => {
    if (task.result?.state === "fail") console.error(cluster?.evidence());
  });
  afterAll(() => cluster?.stop());
  return () => {
    if (cluster === undefined) throw new Error("no cluster yet");
    return cluster;
  };
}
