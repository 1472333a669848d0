// SPDX-License-Identifier: Apache-2.0
// One image of one architecture, from its parts: Debian's files, Node, and what is ours.
import { mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { ARCHES, type Arch } from "./arch.ts";
import { type Bundle, makeBundle } from "./bundle.ts";
import { compilePrograms, type Programs } from "./compile.ts";
import { type Debian, type DebianOptions, unpackDebian } from "./debian.ts";
import { packLayer } from "./layer.ts";
import { NODE_VERSION, type NodePackage, unpackNode } from "./node-package.ts";
import type { Image } from "./oci.ts";
import { rootfsTree } from "./rootfs.ts";
import { renderSbom } from "./sbom.ts";
import { Tree } from "./tree.ts";

export interface ImageOptions {
  readonly version: string;
  /** Commit of the sources, if it is known. */
  readonly revision: string | undefined;
  /** RFC 3339. */
  readonly created: string | undefined;
  readonly debian: DebianOptions;
  /** Called with a line when something is done. */
  readonly say: (text: string) => void;
}

export interface BuiltImage {
  readonly image: Image;
  readonly sbom: string;
  readonly debian: Debian;
}

/** As upstream's: the plugin's source is on the PATH too. */
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/cni/bin";

/** Builds the image of one architecture; `folder` keeps what the next build can use again. */
export async function buildImage(folder: string, arch: Arch, options: ImageOptions): Promise<BuiltImage> {
  const { version, revision, created, say } = options;
  mkdirSync(folder, { recursive: true });
  const layers = join(folder, "layers");
  const debian = unpackDebian(join(folder, "debian"), arch, options.debian);
  const node = unpackNode(join(folder, "node"), arch);
  const programs = Promise.all([debian, node]).then(([unpacked, nodePackage]) => {
    const { packages, fetched } = unpacked;
    const origin = fetched ? "" : " of an earlier build (--refresh asks for newer ones)";
    say(`${arch}: ${packages.length} Debian packages${origin}`);
    return compilePrograms(join(folder, "programs"), arch, unpacked, nodePackage);
  });
  const appLayer = Promise.all([debian, programs, makeBundle(join(folder, "bundle"))]).then(
    async ([unpacked, compiled, bundle]) => {
      const sbom = renderSbom({ version, arch, debian: unpacked, npm: bundle.packages });
      return { sbom, layer: await packLayer(layers, "app", appTree(compiled, bundle, sbom)) };
    },
  );
  const [rootfs, nodeLayer, app] = await settled([
    debian.then((unpacked) => packLayer(layers, "rootfs", rootfsTree(arch, unpacked))),
    node.then((unpacked) => packLayer(layers, "node", nodeTree(unpacked))),
    appLayer,
  ]);
  const labels = {
    "org.opencontainers.image.title": "ambient-cni",
    "org.opencontainers.image.description": "Node agent for Istio's ambient mesh, in place of istio-cni",
    "org.opencontainers.image.version": version,
    "org.opencontainers.image.licenses": "Apache-2.0",
    ...(revision === undefined ? {} : { "org.opencontainers.image.revision": revision }),
    ...(created === undefined ? {} : { "org.opencontainers.image.created": created }),
    "ambient-cni.io/node": NODE_VERSION,
    "ambient-cni.io/sbom": `/${SBOM}`,
  };
  const image: Image = {
    platform: ARCHES[arch].oci,
    layers: [rootfs, nodeLayer, app.layer],
    labels,
    env: [`PATH=${PATH}`],
    command: ["install-cni"],
    created,
  };
  return { image, sbom: app.sbom, debian: await debian };
}

/** All of them, or the first failure, but only when nothing is running any more. */
async function settled<T extends readonly unknown[]>(parts: { [K in keyof T]: Promise<T[K]> }): Promise<T> {
  await Promise.allSettled(parts);
  return Promise.all(parts) as Promise<T>;
}

function nodeTree({ binary, licence }: NodePackage): Tree {
  const tree = new Tree();
  tree.file("usr/local/bin/node", binary, 0o755);
  tree.file("usr/share/doc/node/LICENSE", licence);
  return tree;
}

const SBOM = "usr/share/sbom/ambient-cni.cdx.json";

function appTree({ addon, plugin, launcher }: Programs, { files, packages }: Bundle, sbom: string): Tree {
  const tree = new Tree();
  for (const file of files) tree.file(`app/${basename(file)}`, file);
  tree.file("app/agent.node", addon);
  tree.file("opt/cni/bin/istio-cni", plugin, 0o755);
  tree.file("usr/local/bin/install-cni", launcher, 0o755);
  tree.symlink("usr/local/bin/ambient-cni", "install-cni");
  tree.file("usr/share/doc/ambient-cni/LICENSE", "LICENSE");
  for (const { name, version, texts } of packages) {
    for (const { name: file, text } of texts) tree.text(`usr/share/doc/npm/${name}@${version}/${file}`, text);
  }
  tree.text(SBOM, sbom);
  return tree;
}
