// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { readSettings } from "../../../src/sandbox/ztunnel/settings.ts";

const MESH = { LOCAL_XDS_PATH: "mesh.yaml" };

describe("settings", () => {
  it("are ztunnel's defaults where nothing is set", () => {
    expect(readSettings(MESH)).toEqual({
      uds: "/var/run/ztunnel/ztunnel.sock",
      nodeName: undefined,
      meshPath: "mesh.yaml",
      network: "",
      clusterDomain: "cluster.local",
      ipv6: true,
      mark: 1337,
      reusePort: true,
      originalSource: "try",
      dnsCapture: true,
      dnsUpstream: undefined,
      drainMs: 5000,
      poolStreams: 100,
      poolIdleMs: 300_000,
      adminPort: 15000,
      readinessPort: 15021,
      authorityPath: undefined,
      events: undefined,
    });
  });

  it.each([
    [{ PACKET_MARK: "0" }, { mark: 0 }],
    [{ ENABLE_ORIG_SRC: "true" }, { originalSource: "require" }],
    [{ ENABLE_ORIG_SRC: "false" }, { originalSource: "off" }],
    [{ TERMINATION_GRACE_PERIOD_SECONDS: "30" }, { drainMs: 25_000 }],
    [{ TERMINATION_GRACE_PERIOD_SECONDS: "3" }, { drainMs: 0 }],
    [{ TERMINATION_GRACE_PERIOD_SECONDS: "30", CONNECTION_TERMINATION_DEADLINE: "500ms" }, { drainMs: 500 }],
    [{ CONNECTION_TERMINATION_DEADLINE: "2m" }, { drainMs: 120_000 }],
    [{ ZTUNNEL_DNS_UPSTREAM: "10.0.0.1:53" }, { dnsUpstream: { address: "10.0.0.1", port: 53 } }],
    [{ ZTUNNEL_DNS_UPSTREAM: "[FD00::1]:5353" }, { dnsUpstream: { address: "fd00::1", port: 5353 } }],
    [{ PROXY_CONFIG: "proxyAdminPort: 15999" }, { adminPort: 15999 }],
    [{ PROXY_CONFIG: "proxyAdminPort: 15999", STANDIN_ADMIN_PORT: "0" }, { adminPort: 0 }],
    [{ STANDIN_EVENTS: "3" }, { events: 3 }],
    [{ STANDIN_EVENTS: "/tmp/events" }, { events: "/tmp/events" }],
    [
      { NODE_NAME: "", IPV6_ENABLED: "" },
      { nodeName: undefined, ipv6: true },
    ],
  ])("%j", (env, expected) => {
    expect(readSettings({ ...MESH, ...env })).toMatchObject(expected);
  });

  it("names every wrong value at once", () => {
    const env = {
      IPV6_ENABLED: "yes",
      PACKET_MARK: "4294967296",
      CONNECTION_TERMINATION_DEADLINE: "soon",
      ZTUNNEL_DNS_UPSTREAM: "resolver:53",
      PROXY_CONFIG: "proxyAdminPort: 70000",
      STANDIN_READINESS_PORT: "-1",
    };
    let message = "";
    try {
      readSettings(env);
    } catch (error) {
      message = String(error);
    }
    for (const [name, value] of Object.entries(env)) expect(message).toContain(`${name}=${JSON.stringify(value)}: `);
    expect(message).toContain("LOCAL_XDS_PATH is not set");
  });
});
