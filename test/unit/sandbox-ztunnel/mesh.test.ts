// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { best, Directory, type Route } from "../../../src/sandbox/ztunnel/directory.ts";
import { addressesOf, findService } from "../../../src/sandbox/ztunnel/dns-names.ts";
import { type MeshWorkload, parseMesh } from "../../../src/sandbox/ztunnel/mesh.ts";

const YAML = `
workloads:
- {uid: c, name: client, namespace: default, serviceAccount: client, trustDomain: cluster.local, workloadIps: ["10.0.0.2", "FD00::0:2"], protocol: HBONE, node: node1, services: {}}
- {uid: s1, name: server-1, namespace: default, workloadIps: ["10.0.0.3", "fd00::3"], protocol: HBONE, node: node1, services: {"default/server.default.svc.cluster.local": {80: 8080}}}
- {uid: s2, name: server-2, namespace: default, workloadIps: ["10.0.0.4"], protocol: TCP, node: node2, services: {"default/server.default.svc.cluster.local": {80: 9090}, "default/headless.default.svc.cluster.local": {}}}
services:
- {name: server, namespace: default, hostname: server.default.svc.cluster.local, vips: ["/10.96.0.1", "/fd96::1"], ports: {80: 8080, 443: 8443}, canonical: true}
- {name: headless, namespace: default, hostname: headless.default.svc.cluster.local, vips: [], ports: {80: 80}}
- {name: empty, namespace: other, hostname: empty.other.svc.cluster.local, vips: ["/10.96.0.2"], ports: {80: 80}}
- {name: wild, namespace: default, hostname: "*.example.com", vips: ["/10.96.0.3"], ports: {80: 80}}
- {name: external, namespace: default, hostname: external.example.org, vips: [], ports: {80: 80}}
- {name: far, namespace: default, hostname: far.example.org, vips: ["elsewhere/10.96.0.4"], ports: {80: 80}}
policies: []
`;

const mesh = parseMesh(YAML);
const directory = new Directory(mesh, "", "node1", () => 0);
const client = local("client", "client");

function local(name: string, serviceAccount: string): MeshWorkload {
  const found = directory.local({ name, namespace: "default", serviceAccount });
  if (found === undefined) throw new Error(`no ${name}`);
  return found;
}

function to(address: string, port: number): Route {
  return directory.route(client, { address, port });
}

describe("the configuration", () => {
  it("is read with ztunnel's defaults, addresses in one form", () => {
    expect(client).toMatchObject({ protocol: "HBONE", network: "", ips: ["10.0.0.2", "fd00::2"] });
    expect(parseMesh("workloads: [{namespace: a, workloadIps: [], services: {}}]").workloads[0]).toMatchObject({
      protocol: "TCP",
      trustDomain: "",
    });
    expect(parseMesh("")).toEqual({ workloads: [], services: [] });
  });

  it.each([
    ["an unknown key", "workloads: [{namespace: a, workloadIps: [], services: {}, colour: red}]", "colour"],
    ["no services", "workloads: [{namespace: a, workloadIps: []}]", "workloads.0.services"],
    ["a bad address", 'workloads: [{namespace: a, workloadIps: ["10.0.0"], services: {}}]', '"10.0.0"'],
    ["a bad protocol", "workloads: [{namespace: a, workloadIps: [], services: {}, protocol: UDP}]", "protocol"],
    ["quoted ports", 'services: [{name: a, namespace: a, hostname: a, vips: [], ports: {"80": 80}}]', "integers"],
    ["a port too high", "services: [{name: a, namespace: a, hostname: a, vips: [], ports: {80: 65536}}]", "ports"],
    ["policies, which it would not enforce", "policies: [{name: deny}]", "policies"],
    [
      "a waypoint, which it can't use",
      "workloads: [{namespace: a, workloadIps: [], services: {}, waypoint: {}}]",
      "waypoint",
    ],
  ])("is refused with %s", (_what, yaml, names) => {
    expect(() => parseMesh(yaml)).toThrow(names);
  });
});

describe("local workloads", () => {
  it("are those of this node, by all three names", () => {
    expect(directory.local({ name: "client", namespace: "default", serviceAccount: "other" })).toBeUndefined();
    expect(directory.local({ name: "server-2", namespace: "default", serviceAccount: "" })).toBeUndefined();
    const anywhere = new Directory(mesh, "", undefined);
    expect(anywhere.local({ name: "server-2", namespace: "default", serviceAccount: "" })?.uid).toBe("s2");
  });
});

describe("routes", () => {
  it("a workload's address to itself", () => {
    expect(to("10.0.0.4", 5000)).toMatchObject({
      kind: "workload",
      workload: { uid: "s2" },
      target: { address: "10.0.0.4", port: 5000 },
      service: undefined,
    });
  });

  it("a service's address to an endpoint, its port mapped, in the family asked for", () => {
    expect(to("10.96.0.1", 80)).toMatchObject({ workload: { uid: "s1" }, target: { address: "10.0.0.3", port: 8080 } });
    expect(to("fd96::1", 80)).toMatchObject({ workload: { uid: "s1" }, target: { address: "fd00::3", port: 8080 } });
    const last = new Directory(mesh, "", "node1", () => 0.99);
    expect(last.route(client, { address: "10.96.0.1", port: 80 })).toMatchObject({ target: { port: 9090 } });
    expect(last.route(client, { address: "fd96::1", port: 80 })).toMatchObject({ target: { address: "10.0.0.4" } });
    expect(last.route(client, { address: "10.96.0.1", port: 443 })).toMatchObject({ target: { port: 8443 } });
  });

  it("no way to a port the service lacks, or to a service without endpoints", () => {
    expect(to("10.96.0.1", 81)).toEqual({ kind: "none", reason: "no healthy upstream: 10.96.0.1:81" });
    expect(to("10.96.0.2", 80)).toEqual({ kind: "none", reason: "no healthy upstream: 10.96.0.2:80" });
    expect(to("fd96::1", 81)).toEqual({ kind: "none", reason: "no healthy upstream: [fd96::1]:81" });
  });

  it("everything else straight on, also what is known in another network only", () => {
    expect(to("192.0.2.1", 80)).toEqual({ kind: "passthrough", destination: { address: "192.0.2.1", port: 80 } });
    expect(to("10.96.0.4", 80)).toMatchObject({ kind: "passthrough" });
  });
});

describe("services of one name", () => {
  const named = (namespace: string, canonical: boolean) => {
    const [first] = mesh.services;
    if (first === undefined) throw new Error("no service");
    return { ...first, namespace, canonical };
  };
  it("the client's namespace first, then the canonical one, then the first", () => {
    const [a, b, c] = [named("a", false), named("b", true), named("c", false)];
    expect(best([a, b, c], "c")).toBe(c);
    expect(best([a, b, c], "x")).toBe(b);
    expect(best([a, c], "x")).toBe(a);
    expect(best([], "x")).toBeUndefined();
  });
});

describe("DNS names", () => {
  const find = (name: string) => {
    const match = findService(directory, client, name, "cluster.local");
    return match === undefined ? undefined : [match.service.name, match.stripped];
  };
  it.each([
    ["server.default.svc.cluster.local", ["server", undefined]],
    ["SERVER.Default.svc.cluster.local", ["server", undefined]],
    ["server", ["server", undefined]],
    ["server.default", ["server", undefined]],
    ["server.default.svc", ["server", undefined]],
    ["empty.other", ["empty", undefined]],
    ["empty", undefined],
    ["server.default.svc.cluster.local.default.svc.cluster.local", ["server", "server.default.svc.cluster.local"]],
    ["server.default.default.svc.cluster.local", ["server", "server.default"]],
    ["www.example.com", ["wild", undefined]],
    ["a.b.example.com", ["wild", undefined]],
    ["www.example.com.cluster.local", ["wild", undefined]],
    ["example.com", undefined],
    ["headless", ["headless", undefined]],
    // No address and not Kubernetes' own: the upstream resolver knows.
    ["external.example.org", undefined],
    ["unknown.example", undefined],
  ])("%s", (name, expected) => {
    expect(find(name)).toEqual(expected);
  });

  it("have the addresses of the VIPs in the client's network, or of a headless service's endpoints", () => {
    const service = (name: string) => {
      const found = mesh.services.find((each) => each.name === name);
      if (found === undefined) throw new Error(`no ${name}`);
      return found;
    };
    expect(addressesOf(service("server"), client, 4)).toEqual(["10.96.0.1"]);
    expect(addressesOf(service("server"), client, 6)).toEqual(["fd96::1"]);
    expect(addressesOf(service("headless"), client, 4)).toEqual(["10.0.0.4"]);
    expect(addressesOf(service("headless"), client, 6)).toEqual([]);
    expect(addressesOf(service("far"), client, 4)).toEqual([]);
  });
});
