// Four tiers, one runner: unit (no root), kernel (own namespaces), e2e (the sandbox) and runtime (containerd in it).
import { defineConfig } from "vitest/config";

/** One after the other, in this order; each with so many files at once. */
const ORDER = ["unit", "kernel", "kernel-alone", "e2e", "runtime"];

/** They look at what hangs on the root of the cgroup hierarchy, where the other tests of eBPF attach programs too. */
const ALONE = ["closed", "neighbours"].map((name) => `test/kernel/dataplane/ebpf/${name}.test.ts`);

const tier = (name: string, testTimeout: number, maxWorkers: number) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout,
    hookTimeout: testTimeout,
    // What is awaited comes late on a busy machine.
    expect: { poll: { timeout: 10_000 } },
    sequence: { groupOrder: ORDER.indexOf(name) },
    maxWorkers,
    pool: "forks" as const,
  },
});

const { test } = tier("runtime", 240_000, 2);
const image = { globalSetup: "test/runtime/build-image.ts", setupFiles: "test/runtime/await-image.ts" };
const runtime = { test: { ...test, ...image } };

const kernel = tier("kernel", 60_000, 2);
const others = { test: { ...kernel.test, exclude: ALONE } };
const alone = { test: { ...tier("kernel-alone", 60_000, 1).test, include: ALONE } };

// Each test makes its own namespaces, cgroups and files. Those of the kernel wait for it most of the time.
export default defineConfig({
  test: {
    projects: [tier("unit", 20_000, 2), others, alone, tier("e2e", 240_000, 2), runtime],
  },
});
