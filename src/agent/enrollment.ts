// SPDX-License-Identifier: Apache-2.0
import type { Stop } from "../core/disposable.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { RedirectionState } from "../core/ports/cluster.ts";
import type { CaptureSpec, EngineName } from "../core/ports/dataplane.ts";
import type { ManualClaim } from "../core/ports/manual.ts";
import type { NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import type { Workload } from "../core/ports/ztunnel.ts";
import { RepairPace } from "../core/repair-pace.ts";

/** How long a pod that was read live counts although the watch has not brought it, in ms. */
const ADMITTED_MS = 60_000;

/** Where a pod that belongs to the mesh (or still carries our state) stands. */
export type EnrollmentState =
  /** Not captured yet: waiting for its first pass, for its netns or for a ztunnel. */
  | "pending"
  /** Captured. */
  | "enrolled"
  /** On its way out: new connections are no longer captured. */
  | "draining";

export interface Failure {
  readonly code: string;
  readonly message: string;
  /** Wall clock, ms. */
  readonly since: number;
}

/** Our record of one pod. A cache: each pass over the pod compares it with the kernel again. */
export class Enrollment {
  state: EnrollmentState = "pending";
  pod: Pod;
  /** True until the CNI ADD that brought this pod has been answered. */
  inCniAdd = false;
  /** Wall clock, ms: until then a pod that was read live counts, though the cache lacks it. 0: it has left the cache. */
  admittedUntil = 0;
  spec: CaptureSpec | undefined;
  engine: EngineName | undefined;
  /** The netns for which a ztunnel has acked an add, and on which connection, where that is known. */
  ackedNetns: NetnsId | undefined;
  ackedConnection: number | undefined;
  /** The netns in which this pod has been captured before: there it is only repaired, never let out. */
  capturedNetns: NetnsId | undefined;
  /** It may carry state of ours: it was captured, or announced as captured, since we know it. */
  touched = false;
  /** Told to be gone: no snapshot names it any more. */
  forgotten = false;
  readonly repairs = new RepairPace();
  /** While draining: when open connections are cut, on the clock of the agent, ms. */
  drainUntil: number | undefined;
  /** Addresses that the probe exemption holds for this pod, or may hold. */
  exemptIps: readonly string[] = [];
  /** It holds them all: not known after a change of which nobody knows how far it came. */
  exempt = false;
  /** What the annotation says as far as we wrote or read it. */
  annotation: RedirectionState | null | undefined;
  /** resourceVersion of the cached pod when we last patched it: until the cache moves on, ours is newer. */
  patchedFrom: string | undefined;
  failure: Failure | undefined;
  /** Annotations that were not heeded, as last logged. */
  warnings: readonly string[] = [];
  /** A sweep found no process of this pod in any netns. */
  lost = false;
  /** Its sandbox has been taken down. */
  going = false;
  /** Wall clock, ms. */
  enrolledAt: number | undefined;
  /** The same on the clock of the agent, which does not jump. */
  enrolledSince: number | undefined;
  /** Open connections that are older than the capture, at the last look. */
  existing = 0;
  /** Captured by an agent before this one: since when is not known. */
  adopted = false;
  /** Captured by the watch though its ADD should have done it. */
  late = false;
  /** A netns that somebody captured by hand: `pod` is made up for it. */
  manual: ManualClaim | undefined;
  private drainTimer: Stop | undefined;
  private watched: { readonly netns: NetnsId; readonly stop: Stop } | undefined;
  private handle: NetnsHandle | undefined;
  private offered: NetnsHandle | undefined;
  private cniIps: readonly string[] = [];
  private apiIpsAtAdd: readonly string[] = [];
  private cniNetns: NetnsId | undefined;

  constructor(pod: Pod) {
    this.pod = pod;
  }

  get uid(): string {
    return this.pod.uid;
  }

  get name(): string {
    return this.manual === undefined ? podKey(this.pod) : this.uid;
  }

  /** Whether a ztunnel is to be told of it. */
  get served(): boolean {
    return this.manual === undefined || this.manual.workload !== null;
  }

  get workload(): Workload {
    const { uid, name, namespace, serviceAccount } = this.pod;
    return { uid, name, namespace, serviceAccount };
  }

  /**
   * Addresses to capture. The runtime's, from a CNI ADD, are newer than the API's until the API shows
   * others than it did at that time: a recreated sandbox has a new address, the API still the old one.
   */
  get ips(): readonly string[] {
    const unchanged = this.pod.ips.join() === this.apiIpsAtAdd.join();
    return this.cniIps.length > 0 && (this.pod.ips.length === 0 || unchanged) ? this.cniIps : this.pod.ips;
  }

  /** It was read live: it counts for a while, though the cache lacks it. */
  admit(): void {
    this.admittedUntil = Date.now() + ADMITTED_MS;
  }

  /** Takes what a CNI ADD brought: the sandbox's netns, for the next pass, and its addresses. */
  offerSandbox(handle: NetnsHandle, ips: readonly string[]): void {
    this.inCniAdd = true;
    this.lost = false;
    this.cniIps = ips;
    this.apiIpsAtAdd = this.pod.ips;
    this.cniNetns = handle.id;
    this.offerNetns(handle);
  }

  /**
   * After a failed pass: if it worked on the sandbox of an ADD that is still waiting, the runtime will
   * throw that sandbox away, so no retry may use its netns or addresses.
   */
  abandonSandbox(): void {
    if (this.servesCniAdd) this.discardSandbox();
  }

  /** The ADD that offered this netns has been answered; unless it succeeded, its sandbox is discarded. */
  endCniAdd(netns: NetnsId, success: boolean): void {
    // Another ADD may have begun meanwhile: what it brought stays.
    if (this.cniNetns !== netns) return;
    this.inCniAdd = false;
    if (!success && (this.handle?.id === netns || this.offered?.id === netns)) this.discardSandbox();
  }

  private discardSandbox(): void {
    this.cniIps = [];
    this.admittedUntil = 0;
    this.dropNetns();
  }

  get netns(): NetnsHandle | undefined {
    return this.handle;
  }

  get acked(): boolean {
    return this.handle !== undefined && this.ackedNetns === this.handle.id;
  }

  /** True where a failure must leave the pod captured: it was captured in this very netns. */
  get wasCaptured(): boolean {
    return this.handle !== undefined && this.capturedNetns === this.handle.id;
  }

  /** True while the ADD that offered the held netns has not been answered. */
  get servesCniAdd(): boolean {
    return this.inCniAdd && this.handle !== undefined && this.handle.id === this.cniNetns;
  }

  /** Has `watch` called for the held netns, once. Returns whether that was now. */
  watchNetns(watch: (netns: NetnsHandle) => Stop): boolean {
    if (this.handle === undefined || this.watched?.netns === this.handle.id) return false;
    this.watched?.stop();
    this.watched = { netns: this.handle.id, stop: watch(this.handle) };
    return true;
  }

  /** Leaves a handle for the next pass over this pod to take: a pass under way keeps the one it has. */
  offerNetns(handle: NetnsHandle): void {
    this.offered?.close();
    this.offered = handle;
  }

  /** Takes what was offered. Returns true when that is another netns than the one held. */
  takeOffer(): boolean {
    const handle = this.offered;
    this.offered = undefined;
    return handle !== undefined && this.adoptNetns(handle);
  }

  /**
   * Takes over a handle. When it names the netns already held, the new fd is closed and the old one
   * kept; another netns replaces it. Returns whether a held netns was replaced.
   */
  adoptNetns(handle: NetnsHandle): boolean {
    const held = this.handle;
    if (held === handle) return false;
    if (held !== undefined && held.id === handle.id) {
      handle.close();
      return false;
    }
    this.unwatch();
    this.handle = handle;
    // Inode numbers are used again: what was true of the old netns must not be believed of a later one.
    if (held !== undefined) this.forgetNetns();
    held?.close();
    return held !== undefined;
  }

  dropNetns(): void {
    this.unwatch();
    this.offered?.close();
    this.offered = undefined;
    this.handle?.close();
    this.handle = undefined;
    this.drainTimer?.();
    this.forgetNetns();
  }

  private forgetNetns(): void {
    this.ackedNetns = undefined;
    this.ackedConnection = undefined;
    this.capturedNetns = undefined;
    this.enrolledAt = undefined;
    this.enrolledSince = undefined;
    this.adopted = false;
    this.going = false;
  }

  /** Has `soon` arranged for the next look while this pod drains, in place of the one arranged before. */
  lookAgain(soon: () => Stop): void {
    this.drainTimer?.();
    this.drainTimer = soon();
  }

  private unwatch(): void {
    this.watched?.stop();
    this.watched = undefined;
  }
}
