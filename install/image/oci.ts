// SPDX-License-Identifier: Apache-2.0
// The archive: an OCI image layout (https://github.com/opencontainers/image-spec) in a tar, with the
// manifest.json that `docker load` of every version reads beside it.
import { createHash } from "node:crypto";
import type { Layer } from "./layer.ts";
import { type Written, writeTar } from "./tar.ts";
import { type Content, Tree } from "./tree.ts";

/** One image of one architecture. */
export interface Image {
  readonly platform: { readonly architecture: string; readonly variant?: string };
  readonly layers: readonly Layer[];
  readonly labels: Readonly<Record<string, string>>;
  readonly env: readonly string[];
  readonly command: readonly string[];
  /** RFC 3339; undefined = the image names no time. */
  readonly created: string | undefined;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

const TYPES = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar+gzip",
} as const;

/**
 * Writes an archive with one image per architecture, all under one name (`registry/repository:tag`).
 * One image is named by index.json itself, several by an index of their own, so that every reader finds
 * exactly one thing. The same images are the same bytes. Returns the digest under which a registry will know it.
 */
export function writeArchive(file: string, name: string, images: readonly Image[]): Written & { digest: string } {
  const layout = new Layout();
  const platforms = images.map((image) => {
    const manifest = layout.image(image);
    return { ...manifest, platform: { os: "linux", ...image.platform } };
  });
  const [only, ...others] = platforms;
  if (only === undefined) throw new Error("an archive without an image");
  const top = others.length === 0 ? only : layout.json(TYPES.index, index(TYPES.index, platforms));
  // containerd goes by the first, everybody else by the second.
  const annotations = {
    "io.containerd.image.name": name,
    "org.opencontainers.image.ref.name": name.slice(name.lastIndexOf(":") + 1),
  };
  layout.tree.text("index.json", JSON.stringify(index(TYPES.index, [{ ...top, annotations }])));
  layout.tree.text("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const [image] = images;
  if (others.length === 0 && image !== undefined) {
    layout.tree.text("manifest.json", JSON.stringify([dockerManifest(name, image)]));
  }
  return { ...writeTar(file, layout.tree.entries()), digest: top.digest };
}

function index(mediaType: string, manifests: readonly object[]): object {
  return { schemaVersion: 2, mediaType, manifests };
}

const blobPath = (sha256: string) => `blobs/sha256/${sha256}`;

function dockerManifest(name: string, image: Image): object {
  return {
    Config: blobPath(sha256(configOf(image))),
    RepoTags: [name],
    Layers: image.layers.map(({ digest }) => blobPath(digest)),
  };
}

function configOf({ platform, layers, labels, env, command, created }: Image): Buffer {
  const time = created === undefined ? {} : { created };
  const config = {
    ...time,
    ...platform,
    os: "linux",
    config: { User: "0:0", Env: env, Cmd: command, WorkingDir: "/", Labels: labels },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => `sha256:${diffId}`) },
    history: layers.map(({ title }) => ({ ...time, created_by: `ambient-cni build:image: ${title}` })),
  };
  return Buffer.from(JSON.stringify(config));
}

class Layout {
  readonly tree = new Tree();

  /** Adds an image's blobs; images may share them. */
  image(image: Image): Descriptor {
    const layers = image.layers.map(({ digest, size, file }) => this.#blob(TYPES.layer, digest, size, { file }));
    const config = configOf(image);
    return this.json(TYPES.manifest, {
      schemaVersion: 2,
      mediaType: TYPES.manifest,
      config: this.#blob(TYPES.config, sha256(config), config.length, config),
      layers,
    });
  }

  json(mediaType: string, document: object): Descriptor {
    const bytes = Buffer.from(JSON.stringify(document));
    return this.#blob(mediaType, sha256(bytes), bytes.length, bytes);
  }

  #blob(mediaType: string, hex: string, size: number, content: Content): Descriptor {
    const path = blobPath(hex);
    if (!this.tree.has(path)) this.tree.add({ type: "file", path, mode: 0o644, content });
    return { mediaType, digest: `sha256:${hex}`, size };
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
