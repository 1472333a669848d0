// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { sidecarSettings } from "../../../src/sidecar/settings.ts";
import { describeSidecar } from "../../../src/sidecar/words.ts";

const setting = (name: string, value: string) => ({ [`traffic.sidecar.istio.io/${name}`]: value });

test("defaults", () => {
  expect(describeSidecar(sidecarSettings({ annotations: {}, proxy: undefined }), { families: [4] })).toEqual({
    mode: "REDIRECT",
    proxy: "uid 1337, gid 1337",
    families: "IPv4",
    inbound: "every port but 15020, 15021, 15090",
    outbound: "everything",
    "outbound ports left alone": "15020",
    dns: "left alone",
  });
});

test("everything set", () => {
  const annotations = {
    "sidecar.istio.io/interceptionMode": "TPROXY",
    ...setting("includeInboundPorts", "80,443"),
    ...setting("includeOutboundIPRanges", "10.0.0.0/8"),
    ...setting("excludeOutboundIPRanges", "10.9.0.0/16"),
    ...setting("includeOutboundPorts", "5432"),
    ...setting("excludeOutboundPorts", ""),
    ...setting("excludeInterfaces", "net1"),
    ...setting("kubevirtInterfaces", "k6t-eth0"),
  };
  const proxy = { uid: 7, gid: 8, role: "sidecar", env: { ISTIO_META_DNS_CAPTURE: "true", INVALID_DROP: "true" } };
  expect(describeSidecar(sidecarSettings({ annotations, proxy }), { families: [4, 6] })).toEqual({
    mode: "TPROXY",
    proxy: "uid 7, gid 8",
    families: "IPv4, IPv6",
    inbound: "80, 443",
    outbound: "10.0.0.0/8 but 10.9.0.0/16",
    "outbound ports always": "5432",
    dns: "to the sidecar",
    "interfaces left alone": "net1",
    "rerouted interfaces": "k6t-eth0",
    "invalid packets": "dropped",
  });
  const nothing = { ...setting("includeInboundPorts", ""), ...setting("includeOutboundIPRanges", "") };
  expect(describeSidecar(sidecarSettings({ annotations: nothing, proxy }), { families: [4] })).toMatchObject({
    inbound: "nothing",
    outbound: "nothing",
  });
});
