// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { type Layer, packLayer } from "../../../install/image/layer.ts";
import { type Image, writeArchive } from "../../../install/image/oci.ts";
import { Tree } from "../../../install/image/tree.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const NAME = "registry.example:5000/team/agent:1.2.3";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

function layerOf(dir: ScratchDir, title: string, text: string): Promise<Layer> {
  const tree = new Tree();
  tree.text(`etc/${title}`, text);
  return packLayer(dir.file("layers"), title, tree);
}

async function imageOf(dir: ScratchDir, architecture: string): Promise<Image> {
  return {
    platform: { architecture },
    layers: [await layerOf(dir, "shared", "same for all"), await layerOf(dir, architecture, architecture)],
    labels: { "org.opencontainers.image.title": "agent" },
    env: ["PATH=/usr/bin"],
    command: ["install-cni"],
    created: "2026-01-02T03:04:05Z",
  };
}

function unpack(dir: ScratchDir, archive: string) {
  const out = dir.file(`${archive}.d`);
  mkdirSync(out);
  execFileSync("tar", ["-xf", dir.file(archive), "-C", out]);
  const json = (path: string) => JSON.parse(readFileSync(`${out}/${path}`, "utf8"));
  const blob = ({ digest, size }: { digest: string; size: number }) => {
    const bytes = readFileSync(`${out}/blobs/${digest.replace(":", "/")}`);
    expect(bytes.length).toBe(size);
    return bytes;
  };
  return { out, json, blob };
}

test("every blob is named by what it holds, and is reached from index.json", async () => {
  using dir = new ScratchDir();
  const { digest } = writeArchive(dir.file("a.tar"), NAME, [await imageOf(dir, "amd64")]);
  const { out, json, blob } = unpack(dir, "a.tar");
  for (const name of readdirSync(`${out}/blobs/sha256`)) {
    expect(sha256(readFileSync(`${out}/blobs/sha256/${name}`))).toBe(name);
  }
  expect(json("oci-layout")).toEqual({ imageLayoutVersion: "1.0.0" });
  const [top, ...more] = json("index.json").manifests;
  expect(more).toEqual([]);
  expect(top.digest).toBe(digest);
  expect(top.annotations).toEqual({
    "io.containerd.image.name": NAME,
    "org.opencontainers.image.ref.name": "1.2.3",
  });
  const manifest = JSON.parse(blob(top).toString());
  const config = JSON.parse(blob(manifest.config).toString());
  const layers = manifest.layers.map(blob);
  expect(config.rootfs.diff_ids).toEqual(layers.map((bytes: Buffer) => `sha256:${sha256(gunzipSync(bytes))}`));
  expect(config).toMatchObject({
    created: "2026-01-02T03:04:05Z",
    architecture: "amd64",
    os: "linux",
    config: { User: "0:0", Cmd: ["install-cni"], Env: ["PATH=/usr/bin"] },
  });
  expect(config.history).toHaveLength(2);
  expect(readdirSync(`${out}/blobs/sha256`)).toHaveLength(4);
});

test("docker load finds the same image by manifest.json", async () => {
  using dir = new ScratchDir();
  writeArchive(dir.file("a.tar"), NAME, [await imageOf(dir, "amd64")]);
  const { json, blob } = unpack(dir, "a.tar");
  const manifest = JSON.parse(blob(json("index.json").manifests[0]).toString());
  const path = ({ digest }: { digest: string }) => `blobs/${digest.replace(":", "/")}`;
  expect(json("manifest.json")).toEqual([
    { Config: path(manifest.config), RepoTags: [NAME], Layers: manifest.layers.map(path) },
  ]);
});

test("two architectures are one name: an index, which shares what they share", async () => {
  using dir = new ScratchDir();
  const images = [await imageOf(dir, "amd64"), await imageOf(dir, "arm64")];
  const { digest } = writeArchive(dir.file("a.tar"), NAME, images);
  const { out, json, blob } = unpack(dir, "a.tar");
  const [top, ...more] = json("index.json").manifests;
  expect(more).toEqual([]);
  expect(top.digest).toBe(digest);
  const index = JSON.parse(blob(top).toString());
  expect(index.manifests.map(({ platform }: { platform: object }) => platform)).toEqual([
    { os: "linux", architecture: "amd64" },
    { os: "linux", architecture: "arm64" },
  ]);
  for (const manifest of index.manifests) blob(manifest);
  // Three layers, two configs, two manifests, one index.
  expect(readdirSync(`${out}/blobs/sha256`)).toHaveLength(8);
  expect(readdirSync(out)).not.toContain("manifest.json");
});

test("the same images are the same bytes, packed anew or not", async () => {
  using dir = new ScratchDir();
  using other = new ScratchDir();
  const first = writeArchive(dir.file("a.tar"), NAME, [await imageOf(dir, "amd64")]);
  const again = writeArchive(dir.file("b.tar"), NAME, [await imageOf(dir, "amd64")]);
  const elsewhere = writeArchive(other.file("a.tar"), NAME, [await imageOf(other, "amd64")]);
  expect(again).toEqual(first);
  expect(elsewhere).toEqual(first);
});

test("a layer that changes is packed anew, whatever lies there from before", async () => {
  using dir = new ScratchDir();
  const before = await layerOf(dir, "app", "one");
  const after = await layerOf(dir, "app", "two");
  expect(after.diffId).not.toBe(before.diffId);
  expect(sha256(readFileSync(after.file))).toBe(after.digest);
  expect(gunzipSync(readFileSync(after.file)).includes("two")).toBe(true);
});

test("no image, no archive", () => {
  using dir = new ScratchDir();
  expect(() => writeArchive(dir.file("a.tar"), NAME, [])).toThrow("an archive without an image");
});
