// Four tiers, one runner: unit (no root), kernel (own namespaces), e2e (the sandbox) and runtime (containerd in it).
import { defineConfig } from "vitest/config";

const tier = (name: string, testTimeout: number, parallel: boolean) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout,
    hookTimeout: testTimeout,
    fileParallelism: parallel,
    pool: "forks" as const,
  },
});

const { test } = tier("runtime", 240_000, false);
const runtime = { test: { ...test, globalSetup: "test/runtime/build-image.ts" } };

export default defineConfig({
  test: {
    projects: [tier("unit", 20_000, true), tier("kernel", 60_000, false), tier("e2e", 240_000, false), runtime],
  },
});
