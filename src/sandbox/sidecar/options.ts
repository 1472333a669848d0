// SPDX-License-Identifier: Apache-2.0
// How the stand-in for a sidecar is told what to be: one JSON argument.
import * as v from "valibot";

export const SIDECAR_OPTIONS = v.object({
  /** Who it becomes before it opens a socket. Without a user it stays root, as sidecars in TPROXY mode do. */
  uid: v.optional(v.number()),
  gid: v.number(),
  /** TPROXY mode: its inbound listener is transparent, and the application sees the client's address. */
  transparent: v.boolean(),
  ipv6: v.boolean(),
  /** "ADDRESS:PORT" of services to that of an endpoint; what is none goes where it was going. */
  services: v.record(v.string(), v.string()),
});
export type SidecarOptions = v.InferOutput<typeof SIDECAR_OPTIONS>;

export const SIDECAR_EVENT = v.variant("event", [
  v.object({ event: v.literal("ready") }),
  /** A connection accepted on one of its ports. */
  v.object({
    event: v.literal("accepted"),
    port: v.number(),
    peer: v.string(),
    original: v.string(),
  }),
  /** A question that came to its DNS server. */
  v.object({ event: v.literal("question"), protocol: v.picklist(["udp", "tcp"]), text: v.string() }),
]);
/** One line of its output. Endpoints are "ADDRESS:PORT", IPv6 without brackets. */
export type SidecarEvent = v.InferOutput<typeof SIDECAR_EVENT>;
