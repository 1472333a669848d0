// SPDX-License-Identifier: Apache-2.0
// What is in an image, as CycloneDX 1.5 (https://cyclonedx.org/docs/1.5/json/).
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ARCHES, type Arch } from "./arch.ts";
import type { NpmPackage } from "./bundle.ts";
import type { Debian, UnpackedPackage } from "./debian.ts";
import { debianLicences, type Licence } from "./licences.ts";
import { NODE_SHA512, NODE_VERSION } from "./node-package.ts";

export interface Contents {
  readonly version: string;
  readonly arch: Arch;
  readonly debian: Debian;
  readonly npm: readonly NpmPackage[];
}

/** The document; the same contents are the same bytes. */
export function renderSbom({ version, arch, debian, npm }: Contents): string {
  const components = [
    ...debian.packages
      .filter(({ use }) => use !== "build")
      .map((found) => debianComponent(found, ARCHES[arch].debian, debian.sysroot)),
    ...npm.map(npmComponent),
    nodeComponent(arch),
  ].sort((a, b) => (a.purl < b.purl ? -1 : 1));
  const document = {
    $schema: "http://cyclonedx.org/schema/bom-1.5.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      component: {
        type: "container",
        "bom-ref": "ambient-cni",
        name: "ambient-cni",
        version,
        licenses: [{ license: { id: "Apache-2.0" } }],
        properties: [{ name: "ambient-cni:architecture", value: arch }],
      },
    },
    components: components.map((component) => ({ "bom-ref": component.purl, ...component })),
    dependencies: [{ ref: "ambient-cni", dependsOn: components.map(({ purl }) => purl) }],
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

interface Component {
  readonly type: "library" | "application";
  readonly name: string;
  readonly version: string;
  readonly purl: string;
  readonly licenses?: readonly (Licence | { readonly expression: string })[];
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly properties?: readonly { readonly name: string; readonly value: string }[];
  readonly cpe?: string;
}

function debianComponent(found: UnpackedPackage, architecture: string, sysroot: string): Component {
  const { name, version, sha256, use, control } = found;
  const field = (key: string) => new RegExp(`^${key}: (.*)$`, "m").exec(control)?.[1];
  const file = join(sysroot, "usr/share/doc", name, "copyright");
  const licenses = existsSync(file) ? debianLicences(readFileSync(file, "utf8")) : [];
  const where = new URLSearchParams({ arch: field("Architecture") ?? architecture, distro: "debian-12" });
  return {
    type: "library",
    name,
    version,
    purl: `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?${where}`,
    ...(licenses.length === 0 ? {} : { licenses }),
    hashes: [{ alg: "SHA-256", content: sha256 }],
    properties: [
      { name: "ambient-cni:source-package", value: field("Source") ?? name },
      ...(use === "static" ? [{ name: "ambient-cni:linked-into", value: "/opt/cni/bin/istio-cni" }] : []),
    ],
  };
}

function npmComponent({ name, version, licence }: NpmPackage): Component {
  const compound = /[\s()]/.test(licence);
  return {
    type: "library",
    name,
    version,
    purl: `pkg:npm/${name.replace("@", "%40")}@${encodeURIComponent(version)}`,
    licenses: [compound ? { expression: licence } : { license: { id: licence } }],
  };
}

function nodeComponent(arch: Arch): Component {
  return {
    type: "application",
    name: "node",
    version: NODE_VERSION,
    purl: `pkg:generic/node@${NODE_VERSION}`,
    cpe: `cpe:2.3:a:nodejs:node.js:${NODE_VERSION}:*:*:*:lts:*:*:*`,
    licenses: [{ license: { id: "MIT" } }],
    properties: [
      { name: "ambient-cni:npm-package", value: `node-linux-${arch}@${NODE_VERSION}` },
      { name: "ambient-cni:npm-integrity", value: `sha512-${NODE_SHA512[arch]}` },
    ],
  };
}
