// SPDX-License-Identifier: Apache-2.0
// Dataplanes that hand pods over to upstream in a form of the test's choice, each started once per file.
import { NodeDataplane } from "../../src/dataplane/dataplane.ts";
import type { UpstreamSettings } from "../../src/dataplane/upstream/form.ts";
import type { NativeBinding } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import { noMetrics, quiet } from "./lab-dataplane.ts";
import type { LabEngine } from "./lab-engines.ts";
import type { UpstreamForm } from "./lab-upstream.ts";

export const UPSTREAM_SETTINGS: Readonly<Record<UpstreamForm, UpstreamSettings>> = {
  nftables: { nativeNftables: true },
  "iptables-nft": { nativeNftables: false, forceIptablesBinary: "nft" },
  "iptables-legacy": { nativeNftables: false, forceIptablesBinary: "legacy" },
};

interface Giver {
  readonly dataplane: NodeDataplane;
  readonly config: { engine: "auto" } & UpstreamSettings;
}

export class LabGivers {
  readonly #started = new Map<string, Giver>();

  async of(engine: LabEngine, form: UpstreamForm, binding: NativeBinding = native()): Promise<NodeDataplane> {
    const name = `${engine.name} ${binding === native()}`;
    const giver = this.#started.get(name) ?? (await start(engine, binding));
    this.#started.set(name, giver);
    // Read when a pod is handed over.
    Object.assign(giver.config, UPSTREAM_SETTINGS[form]);
    return giver.dataplane;
  }

  close(): void {
    for (const { dataplane } of this.#started.values()) dataplane.close();
  }
}

async function start(engine: LabEngine, binding: NativeBinding): Promise<Giver> {
  const config = { engine: "auto" } as const;
  const engines = engine.make(binding, quiet);
  const dataplane = new NodeDataplane({ binding, logger: quiet, metrics: noMetrics, config, engines });
  await dataplane.start();
  return { dataplane, config };
}
