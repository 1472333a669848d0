// SPDX-License-Identifier: Apache-2.0
import { DATAPLANE_MODE_LABEL } from "../../../../src/core/constants.ts";
import type { Chance } from "../storm/chance.ts";
import { AMBIENT, type FaultNode, type NodePod } from "./fault-node.ts";
import type { Fate } from "./fault-point.ts";

const NAMES = ["a", "b", "c"];
const FATES: readonly Fate[] = ["refused", "lost", "late", "killed before", "killed after"];
/** What fails here is found by a sweep, and nothing else. */
const SWEPT: ReadonlySet<string> = new Set(["dataplane.watch"]);
const NONE = { [DATAPLANE_MODE_LABEL]: "none" };

/** Things that happen to a node, one after the other. */
export class Trouble {
  private changing = false;
  private addresses = 0;

  constructor(
    private readonly node: FaultNode,
    private readonly chance: Chance,
  ) {}

  /** Of all calls so many fail, of 1. */
  async make(events: number, failing: number): Promise<void> {
    const { node, chance } = this;
    node.point.scatter((name) => (chance.is(failing) && !SWEPT.has(name) ? chance.of(FATES) : undefined));
    for (let made = 0; made < events; made++) {
      this.happen();
      await node.clock.pause(chance.is(0.4) ? chance.below(20) : chance.below(1500));
    }
  }

  private happen(): void {
    const pods = [...this.node.pods.values()].filter(({ name, going }) => NAMES.includes(name) && !going);
    const pod = this.chance.of(pods);
    const kind = this.chance.below(14);
    if (kind < 3 || pod === undefined) this.create();
    else if (kind === 12) this.ofZtunnel();
    else if (kind === 13) this.ofAgent();
    else this.ofPod(pod, kind);
  }

  private ofPod(pod: NodePod, kind: number): void {
    const { node, chance } = this;
    const idle = pod.netns !== undefined;
    const does = (what: string, act: () => Promise<void> | void) => {
      node.told(`${pod.uid} ${what}`);
      this.begin(act);
    };
    if (kind === 3) does("is deleted", () => node.remove(pod));
    if (kind === 4) does("loses its label", () => node.change(pod, { labels: NONE }));
    if (kind === 5) does("is labelled", () => node.change(pod, { labels: chance.is(0.5) ? AMBIENT : {} }));
    if (kind === 6 && idle) does("gets a new sandbox", () => this.replace(pod));
    if (kind === 7 && idle) does("is flushed", () => this.flush(pod));
    if (kind === 8 && idle) does("gets another address", () => this.readdress(pod));
    if (kind === 9) does("'s namespace leaves", () => node.parts.cluster.putNamespace("shop", {}));
    if (kind === 10) does("'s namespace joins", () => node.parts.cluster.putNamespace("shop", AMBIENT));
    if (kind === 11) does("'s settings change", () => this.settle(pod));
  }

  private begin(act: () => Promise<void> | void): void {
    (async () => act())().catch((error: unknown) => this.node.trouble(String(error)));
  }

  private create(): void {
    const { node, chance } = this;
    const name = chance.of(NAMES) ?? "a";
    if (node.parts.cluster.podNamed("shop", name) !== undefined) return;
    const labels = chance.is(0.5) ? {} : chance.is(0.5) ? AMBIENT : NONE;
    const pod = node.schedule(name, { labels });
    // Addresses are used again.
    const address = `10.0.1.${chance.below(4)}`;
    if (![...node.pods.values()].some(({ ip }) => ip === address)) pod.ip = address;
    node.told(`${pod.uid} is made, ${JSON.stringify(labels)} ${pod.ip}`);
    this.begin(() => node.startPod(pod));
  }

  private async replace(pod: NodePod): Promise<void> {
    this.node.takeDown(pod);
    await this.node.startPod(pod);
  }

  private flush(pod: NodePod): void {
    pod.captured = undefined;
    this.node.parts.dataplane.kernel.delete(pod.netns ?? "");
    this.node.parts.dataplane.touched(pod.netns ?? "");
  }

  private readdress(pod: NodePod): void {
    this.addresses += 1;
    pod.ip = `10.0.2.${this.addresses}`;
    this.node.change(pod, { ips: [pod.ip] });
  }

  private settle(pod: NodePod): void {
    const { annotations = {} } = this.node.parts.cluster.pod(pod.uid) ?? {};
    const value = String(this.chance.is(0.5));
    this.node.change(pod, { annotations: { ...annotations, "ambient.istio.io/bypass-inbound-capture": value } });
  }

  private ofZtunnel(): void {
    const { node, chance } = this;
    // There is one, but for a moment.
    if (this.changing) return;
    const kind = chance.below(3);
    node.told(`ztunnel ${["connects again", "is replaced", "goes and comes"][kind]}`);
    const change = async () => {
      if (kind === 0) node.cutZtunnel();
      if (kind === 1) node.startZtunnel();
      if (kind === 2) node.endZtunnel();
      await node.clock.pause(chance.below(1500));
      if (kind === 1) node.endZtunnel();
      if (kind === 2) node.startZtunnel();
      this.changing = false;
    };
    this.changing = true;
    void change();
  }

  private ofAgent(): void {
    const { node, chance } = this;
    if (chance.is(0.3)) {
      node.told(`connections are open`);
      node.parts.dataplane.proxied = 1;
      node.clock.after(chance.below(900), () => {
        node.parts.dataplane.proxied = 0;
      });
      return;
    }
    const graceful = chance.is(0.5);
    node.told(`the agent is ${graceful ? "ended" : "killed"}`);
    this.begin(() => (graceful ? node.restart() : node.kill()));
  }
}
