// SPDX-License-Identifier: Apache-2.0
// The stand-in ztunnel as a whole. On the wire and in the kernel it does what ztunnel does; it has no
// xDS, no policies, no waypoints and no metrics.
import { readFileSync } from "node:fs";
import { messageOf } from "../../core/errors.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { CertificateAuthority } from "../identity/authority.ts";
import { type Admin, startAdmin } from "./admin.ts";
import { Journal, quoted, type StandInEvent } from "./journal.ts";
import { LocalWorkload } from "./local-workload.ts";
import { MeshFile } from "./mesh-file.ts";
import { PodProxy } from "./pod-proxy.ts";
import { PodSockets } from "./pod-sockets.ts";
import { Proxies } from "./proxies.ts";
import type { Settings } from "./settings.ts";
import { Tracker } from "./tracker.ts";
import { ZdsClient } from "./zds-client.ts";

export interface StandInOptions {
  readonly native: NativeBinding;
  readonly settings: Settings;
  /** Receives log lines, without a newline. */
  readonly log: (line: string) => void;
  readonly event?: (event: StandInEvent) => void;
}

export interface StandIn {
  readonly adminPort: number;
  readonly readinessPort: number;
  /** True when the snapshot is acked and no pod waits for a retry. */
  readonly ready: boolean;
  /** Exit status: 0 after `stop`, 1 after a message that ztunnel dies of. */
  readonly done: Promise<number>;
  /** What SIGTERM does: no more ZDS, listeners closed, connections drained, then gone. */
  stop(): Promise<void>;
}

/** Starts a stand-in. @throws Error when the mesh, the authority or a port of its own can't be had. */
export async function runStandIn(options: StandInOptions): Promise<StandIn> {
  const { native, settings, log } = options;
  const journal = new Journal(log, options.event);
  const authority =
    settings.authorityPath === undefined
      ? CertificateAuthority.create()
      : CertificateAuthority.fromPem(readFileSync(settings.authorityPath, "utf8"));
  const meshFile = new MeshFile(settings, journal);
  const proxies = new Proxies(
    native,
    (info, netns) =>
      PodProxy.start({
        settings,
        journal,
        sockets: new PodSockets(native, netns, settings, journal),
        local: new LocalWorkload(info, meshFile, authority),
        tracker: new Tracker((error) => {
          journal.log("error", "proxy", "connection handler failed", { error: quoted(messageOf(error)) });
        }),
      }),
    journal,
  );
  let ready = false;
  const readiness = (now: boolean) => {
    if (now !== ready) journal.event({ event: "ready", ready: now });
    ready = now;
  };
  const client = new ZdsClient({ native, path: settings.uds, proxies, journal, readiness });
  let admin: Admin;
  try {
    admin = await startAdmin({
      adminPort: settings.adminPort,
      readinessPort: settings.readinessPort,
      dump: () => ({
        workloadState: proxies.state(),
        workloads: meshFile.mesh.workloads,
        services: meshFile.mesh.services.map(({ endpoints, ports, ...rest }) => ({
          ...rest,
          ports: Object.fromEntries(ports),
          endpoints: Object.fromEntries(endpoints.map((each) => [each.workload.uid, Object.fromEntries(each.ports)])),
        })),
        policies: [],
        config: settings,
      }),
      pending: () => (ready ? [] : ["workload proxy manager"]),
      quit: () => client.stop(),
    });
  } catch (error) {
    meshFile.close();
    throw error;
  }
  const { adminPort, readinessPort } = admin;
  journal.event({ event: "started", pid: process.pid, adminPort, readinessPort });
  const done = client.run().then(
    async () => {
      journal.log("info", "inpod", "drain requested");
      await proxies.stop("graceful");
      return 0;
    },
    async (error: unknown) => {
      journal.log("error", "inpod", "protocol mismatch error while processing stream, shutting down", {
        error: quoted(messageOf(error)),
      });
      await proxies.stop("immediate");
      return 1;
    },
  );
  const finished = done.finally(() => {
    admin.close();
    meshFile.close();
  });
  return {
    adminPort,
    readinessPort,
    get ready() {
      return ready;
    },
    done: finished,
    stop: async () => {
      client.stop();
      await finished;
    },
  };
}
