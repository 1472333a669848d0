// SPDX-License-Identifier: Apache-2.0
// The containers that injection adds to a pod. Their programs are those of the sandbox, which our image has.
import * as v from "valibot";
import { SIDECAR_EVENT, type SidecarEvent, type SidecarOptions } from "../../../src/sandbox/sidecar/options.ts";
import { INJECTED } from "../../../src/sandbox/sidecar/pod.ts";
import { SecurityProfile_ProfileType } from "../gen/cri_pb.ts";
import { AGENT_IMAGE } from "./agent-image.ts";
import type { ContainerConfig } from "./cri-kubelet.ts";

interface SidecarContainer {
  readonly name: string;
  readonly args: readonly string[];
}

const PROXY_ID = { value: 1337n };
const OPTIONS: SidecarOptions = { uid: 1337, gid: 1337, transparent: false, ipv6: true, services: {} };

export const VALIDATION: SidecarContainer = {
  name: INJECTED.initContainers[0].name,
  args: ["sandbox-validation", "4"],
};
export const PROXY: SidecarContainer = {
  name: INJECTED.containers[0].name,
  args: ["sandbox-sidecar", JSON.stringify(OPTIONS)],
};

/** The pod's own check has ended with another status than 0. */
export class CheckFailed extends Error {
  override readonly name = "CheckFailed";
  constructor(
    readonly exitCode: number,
    readonly lines: readonly string[],
  ) {
    super(`${VALIDATION.name} ended with ${exitCode}: ${lines.join("; ")}`);
  }
}

/** As the injector writes them: the proxy's user, and no capability at all. */
export function sidecarContainer({ name, args }: SidecarContainer, attempt: number): ContainerConfig {
  return {
    metadata: { name, attempt },
    image: { image: AGENT_IMAGE },
    command: ["ambient-cni"],
    args: [...args],
    logPath: `${name}.log`,
    linux: {
      securityContext: {
        capabilities: { dropCapabilities: ["ALL"] },
        runAsUser: PROXY_ID,
        runAsGroup: PROXY_ID,
        readonlyRootfs: true,
        noNewPrivs: true,
        seccomp: { profileType: SecurityProfile_ProfileType.Unconfined },
      },
    },
  };
}

/** What has come to a sidecar's listeners, from the lines that it printed. */
export function sidecarEvents(lines: readonly string[]): SidecarEvent[] {
  return lines.map((line) => v.parse(SIDECAR_EVENT, JSON.parse(line)));
}
