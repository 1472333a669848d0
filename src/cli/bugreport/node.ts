// SPDX-License-Identifier: Apache-2.0
import { readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { byBytes, CONF_MAX_BYTES, isConfName, SET_ASIDE } from "../../../install/conf-dir.ts";
import { messageOf } from "../../core/errors.ts";
import { readBounded } from "../../sys/files.ts";
import { listing, nodeFacts } from "../../sys/node-facts.ts";
import { logTails } from "../../sys/pod-logs.ts";
import { VERSION } from "../exit.ts";
import type { NodeView } from "../source/kernel/node-view.ts";
import { bpfDump } from "./bpf.ts";
import type { Collection } from "./collection.ts";
import { isPlainName } from "./layout.ts";
import { Tools } from "./tools.ts";

/** Of each of kubelet's files. */
const LOG_MAX_BYTES = 512 * 1024;
/** Configurations whose contents are kept; all names are. */
const MAX_CONFS = 64;
const KERNEL_LINES = /\b(bpf|nf_|nft|netfilter|conntrack|martian|ip6?_?tables|oom|segfault|cgroup)/i;
const MAX_KERNEL_LINES = 500;

/** What the node's own files, log and pins say, as this process finds them. */
export async function collectNode(collection: Collection, view: NodeView): Promise<void> {
  const { config } = view;
  await collectConfs(collection, config.cniNetDir);
  const directories = [config.cniNetDir, config.cniBinDir, config.runDir, dirname(config.ztunnelSocket)];
  await collection.text("node/files.txt", () => directories.map((path) => `$ ls ${path}\n${listed(path)}`).join("\n"));
  await collection.text("node/versions.txt", () => `ambient-cni ${VERSION}\nnode.js ${process.version}\n`);
  await collection.json("node/facts.json", () => nodeFacts(config.procDir));
  await collection.json("node/bpf.json", () => bpfDump(view));
  const tools = new Tools();
  await collection.text("node/bpf.txt", () =>
    tools.transcript(["prog", "link", "map"].map((what) => ["bpftool", what, "show"])),
  );
  await collection.text("node/dmesg.txt", async () => {
    const lines = (await tools.output(["dmesg"]))?.split("\n").filter((line) => KERNEL_LINES.test(line));
    return lines === undefined ? undefined : `${lines.slice(-MAX_KERNEL_LINES).join("\n")}\n`;
  });
  for (const name of tools.missing) collection.fail("node/", `${name} is not installed here`);
  if (collection.omits("node/logs/")) return;
  await collection.attempt("node/logs/", async () => {
    const wanted = ({ name }: { readonly name: string }) => /^(istio-cni-node|ztunnel)-/.test(name);
    for (const { pod, container, file, text } of logTails(config.procDir, wanted, LOG_MAX_BYTES)) {
      if (isPlainName(container)) await collection.text(`node/logs/${pod.name}/${container}-${file}`, () => text);
    }
  });
}

async function collectConfs(collection: Collection, directory: string): Promise<void> {
  if (collection.omits("node/cni/")) return;
  await collection.attempt("node/cni/", async () => {
    const names = await readdir(directory);
    // Others (a kubeconfig of the primary CNI) may hold anything: their names are in files.txt.
    const confs = names.filter((name) => isConfName(name) || name.endsWith(SET_ASIDE)).sort(byBytes);
    for (const name of confs.slice(0, MAX_CONFS)) {
      const path = `node/cni/${name}`;
      await collection.jsonText(path, async () =>
        (await readBounded(join(directory, name), CONF_MAX_BYTES)).toString("utf8"),
      );
    }
  });
}

function listed(path: string): string {
  try {
    return listing(path, 1)
      .map((line) => `${line}\n`)
      .join("");
  } catch (error) {
    return `${messageOf(error)}\n`;
  }
}
