// SPDX-License-Identifier: Apache-2.0
// What clients ask before they ask for anything: groups, resources, version, schemas.
import { apiVersionOf, RESOURCES, type Resource } from "./resources.ts";

const VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const GROUPS = [...new Set(RESOURCES.map((resource) => resource.group))].filter((group) => group !== "");

/** The answer for a path that is no resource; undefined when there is none. */
export function discovery(path: string): unknown {
  switch (path) {
    case "/api":
      return { kind: "APIVersions", versions: ["v1"], serverAddressByClientCIDRs: [] };
    case "/apis":
      return { kind: "APIGroupList", apiVersion: "v1", groups: GROUPS.map(groupOf) };
    case "/version":
      return {
        major: "1",
        minor: "32",
        gitVersion: "v1.32.0+ambient-cni-sandbox",
        gitCommit: "",
        gitTreeState: "clean",
        buildDate: "1970-01-01T00:00:00Z",
        goVersion: "",
        compiler: "node",
        platform: "linux",
      };
    case "/openapi/v3":
      return {
        paths: Object.fromEntries(groupVersions().map((path) => [path, { serverRelativeURL: `/openapi/v3/${path}` }])),
      };
    default:
      return resourceList(path) ?? group(path) ?? schema(path);
  }
}

function groupVersions(): string[] {
  return [...new Set(RESOURCES.map(groupVersionPath))];
}

function groupVersionPath(resource: Resource): string {
  return resource.group === "" ? `api/${resource.version}` : `apis/${resource.group}/${resource.version}`;
}

function groupOf(group: string): unknown {
  const versions = [...new Set(RESOURCES.filter((r) => r.group === group).map((r) => r.version))].map((version) => ({
    groupVersion: `${group}/${version}`,
    version,
  }));
  return { name: group, versions, preferredVersion: versions[0] };
}

function group(path: string): unknown {
  const name = GROUPS.find((candidate) => path === `/apis/${candidate}`);
  return name === undefined ? undefined : { kind: "APIGroup", apiVersion: "v1", ...Object(groupOf(name)) };
}

function resourceList(path: string): unknown {
  const resources = RESOURCES.filter((resource) => path === `/${groupVersionPath(resource)}`);
  const [first] = resources;
  if (first === undefined) return undefined;
  return {
    kind: "APIResourceList",
    apiVersion: "v1",
    groupVersion: apiVersionOf(first),
    resources: resources.flatMap(({ plural, singular, kind, namespaced, shortNames, subresources, categories }) => [
      { name: plural, singularName: singular, namespaced, kind, verbs: VERBS, shortNames, categories },
      ...subresources.map((subresource) => ({
        name: `${plural}/${subresource}`,
        singularName: "",
        namespaced,
        kind,
        verbs: ["get", "patch", "update"],
      })),
    ]),
  };
}

/**
 * OpenAPI just large enough for kubectl to see that writes know `fieldValidation`, so that it leaves
 * validation to the server.
 */
function schema(path: string): unknown {
  const groupVersion = groupVersions().find((candidate) => path === `/openapi/v3/${candidate}`);
  if (groupVersion === undefined) return undefined;
  const resources = RESOURCES.filter((resource) => groupVersionPath(resource) === groupVersion);
  const parameters = ["fieldValidation", "dryRun"].map((name) => ({
    name,
    in: "query",
    schema: { type: "string", uniqueItems: true },
  }));
  const paths = resources.map((resource) => [
    `/${groupVersion}/${resource.namespaced ? "namespaces/{namespace}/" : ""}${resource.plural}/{name}`,
    {
      patch: {
        parameters,
        responses: { 200: { description: "OK" } },
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": { group: resource.group, version: resource.version, kind: resource.kind },
      },
    },
  ]);
  return {
    openapi: "3.0.0",
    info: { title: "Kubernetes", version: "v1.32.0" },
    paths: Object.fromEntries(paths),
    components: { schemas: {} },
  };
}
