// Four tiers, one runner: unit (no root), kernel (own namespaces), e2e (the sandbox) and runtime (containerd in it).
import { defineConfig } from "vitest/config";

/** One tier after the other, in this order; each with so many files at once. */
const TIERS = ["unit", "kernel", "e2e", "runtime"];

const tier = (name: string, testTimeout: number, maxWorkers: number) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout,
    hookTimeout: testTimeout,
    // What is awaited comes late on a busy machine.
    expect: { poll: { timeout: 10_000 } },
    sequence: { groupOrder: TIERS.indexOf(name) },
    maxWorkers,
    pool: "forks" as const,
  },
});

const { test } = tier("runtime", 240_000, 2);
const image = { globalSetup: "test/runtime/build-image.ts", setupFiles: "test/runtime/await-image.ts" };
const runtime = { test: { ...test, ...image } };

// Each test makes its own namespaces, cgroups and files. Those of the kernel wait for it most of the time.
export default defineConfig({
  test: {
    projects: [tier("unit", 20_000, 2), tier("kernel", 60_000, 3), tier("e2e", 240_000, 2), runtime],
  },
});
