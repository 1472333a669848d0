// SPDX-License-Identifier: Apache-2.0
// An agent is killed between any two of its writes about ztunnels and about who probes, or the kernel refuses any one
// of them: in the end exactly what is alive is hooked, of two ztunnels the newer one first, and nothing is believed before.
import { execFileSync } from "node:child_process";
import { rmdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { KNOBS } from "../../../../src/dataplane/ebpf/node.ts";
import { ProberHooks, type ProberOptions } from "../../../../src/dataplane/ebpf/probers.ts";
import { ZtunnelHooks } from "../../../../src/dataplane/ebpf/ztunnels.ts";
import type { BpfNode } from "../../../../src/native/bpf.ts";
import { native } from "../../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../../src/native/netns.ts";
import type { Cgroup } from "../../../../src/sys/cgroup.ts";
import { type Fault, Faults } from "../../../support/faulty-binding.ts";
import { freshBpffs, LabCgroups, makeCgroup } from "../../../support/lab-bpf.ts";
import { quiet } from "../../../support/lab-dataplane.ts";

const FAULTS: readonly Fault[] = ["killed", "refused"];

/** These beside the root. */
class SomeCgroups extends LabCgroups {
  readonly made: Cgroup[] = [];
  make(name: string): Cgroup {
    const cgroup = makeCgroup(`${name}-${this.made.length}`);
    this.made.push(cgroup);
    return cgroup;
  }
  remove(cgroup: Cgroup): void {
    rmdirSync(cgroup.path);
    this.made.splice(this.made.indexOf(cgroup), 1);
  }
  override withId(id: bigint): Cgroup | undefined {
    return this.made.find((cgroup) => cgroup.id === id) ?? super.withId(id);
  }
  removeAll(): void {
    for (const cgroup of [...this.made]) this.remove(cgroup);
  }
}

let bpffs: string;
let faults: Faults;
/** One directory, as the agent that meets the fault has it, and as the next one. */
let faulty: BpfNode;
let bpf: BpfNode;
let cgroups: SomeCgroups;

beforeAll(() => {
  bpffs = freshBpffs();
  faults = new Faults();
  const dir = join(bpffs, "node");
  faulty = faults.binding().bpfOpen(dir, KNOBS);
  bpf = native().bpfOpen(dir, KNOBS);
});
afterAll(() => {
  faulty.close();
  bpf.close();
  native().bpfRemove(bpffs);
});
beforeEach(() => {
  cgroups = new SomeCgroups();
});
afterEach(() => cgroups.removeAll());

/** The fault after no write, one, two, ... until the change needs no more. */
async function everywhere(fault: Fault, each: (during: (change: () => void) => Promise<boolean>) => Promise<void>) {
  for (let writes = 0; ; writes++) {
    let unmade: string | undefined;
    await each(async (change) => {
      unmade = await faults.during(fault, writes, async () => change());
      return unmade === undefined;
    });
    if (unmade !== undefined) continue;
    expect(writes).toBeGreaterThan(0);
    return;
  }
}

describe("ztunnels", () => {
  const hooksOf = (node: BpfNode) => new ZtunnelHooks(native(), node, cgroups, quiet);
  const slotOf = ({ id }: Cgroup) =>
    ([0, 1] as const).filter((slot) => bpf.link(`ztunnel/${id}/listen${slot}`)?.target === id);
  let old: Cgroup;
  let young: Cgroup;

  beforeEach(() => {
    [old, young] = [cgroups.make("old"), cgroups.make("young")];
  });

  /** Whose connections are ztunnel's, as the programs know it. */
  const told = () => {
    const argv = ["-j", "map", "dump", "pinned", join(bpffs, "node", "maps", "ztunnels")];
    const elements: { readonly key: readonly string[] }[] = JSON.parse(
      execFileSync("bpftool", argv, { encoding: "utf8" }),
    );
    return elements.map(({ key }) => String(Buffer.from(key.map(Number)).readBigUInt64LE())).sort();
  };

  /** Exactly these are hooked, each once, and the last one has a slot of its own, which is served first. */
  function expectHooked(hooks: ZtunnelHooks, ...alive: readonly Cgroup[]): void {
    expect(hooks.missing()).toEqual([]);
    expect(bpf.pins("ztunnel").sort()).toEqual(alive.map(({ id }) => String(id)).sort());
    expect(told()).toEqual(alive.map(({ id }) => String(id)).sort());
    for (const { id } of alive) expect(bpf.link(`ztunnel/${id}/getsockopt`)?.target).toBe(id);
    const slots = alive.map(slotOf);
    expect(slots.map(({ length }) => length)).toEqual(alive.map(() => 1));
    expect(new Set(slots.flat()).size).toBe(Math.min(alive.length, 2));
    expect(slots.at(-1)).toEqual([bpf.stateRead().newestSlot]);
    expect(hooks.hooked.map(({ id }) => id)).toEqual(alive.map(({ id }) => id).reverse());
  }

  /** As the patrol has it mended, or by the agent that comes next, which ztunnels connect to anew. */
  function recovered(fault: Fault, same: ZtunnelHooks, ...connected: readonly Cgroup[]): ZtunnelHooks {
    if (fault === "refused") {
      if (same.missing().length > 0) same.ensure();
      return same;
    }
    const next = hooksOf(bpf);
    next.adopt();
    for (const cgroup of connected) next.hook(cgroup);
    return next;
  }

  /** The kernel empties its link a moment after the cgroup has gone. */
  const end = async (cgroup: Cgroup) => {
    cgroups.remove(cgroup);
    await expect.poll(() => bpf.link(`ztunnel/${cgroup.id}/listen0`)?.target, { interval: 1 }).toBe(0n);
  };

  test.each(FAULTS)("a second one comes, %s", async (fault) => {
    await everywhere(fault, async (during) => {
      bpf.unpin("ztunnel");
      const hooks = hooksOf(faulty);
      hooks.hook(old);
      expectHooked(hooks, old);
      const whole = await during(() => hooks.hook(young));
      expect(slotOf(old)).toHaveLength(1);
      const next = recovered(fault, hooks, old, young);
      expectHooked(next, old, young);
      if (whole) expectHooked(hooks, old, young);
    });
  });

  test.each(FAULTS)("the older one comes back, %s", async (fault) => {
    await everywhere(fault, async (during) => {
      bpf.unpin("ztunnel");
      const hooks = hooksOf(faulty);
      for (const cgroup of [old, young]) hooks.hook(cgroup);
      await during(() => hooks.hook(old));
      expectHooked(recovered(fault, hooks, young, old), young, old);
    });
  });

  test.each(FAULTS)("one goes and the next comes, %s", async (fault) => {
    await everywhere(fault, async (during) => {
      bpf.unpin("ztunnel");
      const gone = cgroups.make("gone");
      const hooks = hooksOf(faulty);
      for (const cgroup of [gone, old]) hooks.hook(cgroup);
      await end(gone);
      await during(() => hooks.hook(young));
      const next = recovered(fault, hooks, old, young);
      next.collect();
      expectHooked(next, old, young);
    });
  });

  test.each(FAULTS)("all but one have gone, and so many pins were taken away, %s", async (fault) => {
    await everywhere(fault, async (during) => {
      bpf.unpin("ztunnel");
      const gone = cgroups.make("gone");
      const hooks = hooksOf(faulty);
      for (const cgroup of [gone, young]) hooks.hook(cgroup);
      await end(gone);
      bpf.unpin(`ztunnel/${young.id}/getsockopt`);
      await during(() => hooks.ensure());
      const next = recovered(fault, hooks, young);
      next.collect();
      expectHooked(next, young);
    });
  });
  test("one whose cgroup is not found in time is a ztunnel still, until it has gone", async () => {
    bpf.unpin("ztunnel");
    const [lost, found] = [cgroups.make("lost"), cgroups.make("found")];
    const before = hooksOf(bpf);
    for (const cgroup of [lost, found]) before.hook(cgroup);
    const after = new ZtunnelHooks(native(), bpf, Object.assign(Object.create(cgroups), { withId }), quiet);
    function withId(id: bigint): Cgroup | undefined {
      return id === found.id ? found : undefined;
    }
    after.adopt();
    expect(told()).toEqual([lost, found].map(({ id }) => String(id)).sort());
    await end(lost);
    after.collect();
    expectHooked(after, found);
  });
});

describe("who probes", () => {
  let host: HeldNetns;
  let kubelet: Cgroup | undefined;
  beforeEach(() => {
    host = createNetns();
    kubelet = undefined;
  });
  afterEach(() => {
    bpf.unpin("probes");
    host.close();
  });

  const hooksOf = (node: BpfNode, sources: ProberOptions["config"]["probeSources"] = "kubelet") => {
    const at = Object.assign(Object.create(cgroups), { ofProcess: () => kubelet });
    const options = { bpf: node, cgroups: at, own: LabCgroups.root, host, config: { probeSources: sources } };
    return new ProberHooks({ binding: native(), logger: quiet, kubelet: () => (kubelet ? 1 : undefined), ...options });
  };

  /** As the exemption looks at them, again and again. */
  const look = (hooks: ProberHooks) => {
    if (!hooks.current) hooks.ensure();
  };

  test.each(FAULTS)("kubelet is found, then restarted, %s", async (fault) => {
    const [first, second] = [cgroups.make("kubelet"), cgroups.make("kubelet")];
    for (const [before, after] of [
      [undefined, first],
      [first, second],
    ] as const) {
      await everywhere(fault, async (during) => {
        bpf.unpin("probes");
        kubelet = before;
        const hooks = hooksOf(faulty);
        hooks.ensure();
        expect(bpf.pins("probes")).toEqual([before === undefined ? "host" : `kubelet-${before.id}`]);
        kubelet = after;
        if (before !== undefined) bpf.unpin(`probes/kubelet-${before.id}`);
        const whole = await during(() => look(hooks));
        if (!whole) expect(hooks.current).toBe(false);
        const next = fault === "refused" ? hooks : hooksOf(bpf);
        look(next);
        expect(next.current).toBe(true);
        expect(bpf.pins("probes")).toEqual([`kubelet-${after.id}`]);
        expect(bpf.link(`probes/kubelet-${after.id}`)?.target).toBe(after.id);
      });
    }
  });

  test("nobody is believed to announce probes while that is not attached", async () => {
    kubelet = cgroups.make("kubelet");
    const hooks = hooksOf(faulty);
    expect(await faults.during("refused", 0, async () => hooks.ensure())).toBe("linkCgroup");
    expect(hooks.current).toBe(false);
    expect(await hooks.prove(host, [])).toBe("the programs that announce them are not attached");
    hooks.ensure();
    expect(await hooks.prove(host, [])).toBeUndefined();
  });

  test.each(FAULTS)("nobody is let through any more, %s", async (fault) => {
    kubelet = cgroups.make("kubelet");
    await everywhere(fault, async (during) => {
      const hooks = hooksOf(faulty, "host");
      hooks.ensure();
      expect(bpf.pins("probes")).toHaveLength(2);
      await during(() => hooks.remove());
      hooksOf(bpf).remove();
      expect(bpf.pins("probes")).toEqual([]);
    });
  });
});
