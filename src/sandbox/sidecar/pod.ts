// SPDX-License-Identifier: Apache-2.0
// What the injector makes of a pod where the CNI plugin writes the redirection, and how its containers start.
import type { Child } from "../../sys/child.ts";
import type { SidecarOptions } from "./options.ts";
import { SidecarRemote } from "./remote.ts";

const RESTART_MS = 500;
const FAILED = 126;

/** Spec and annotations that injection adds to a pod with one container. */
export const INJECTED = {
  annotations: {
    "sidecar.istio.io/status": '{"initContainers":["istio-validation"],"containers":["istio-proxy"]}',
    "sidecar.istio.io/interceptionMode": "REDIRECT",
  },
  initContainers: [{ name: "istio-validation", image: "sandbox/proxyv2" }],
  containers: [
    {
      name: "istio-proxy",
      image: "sandbox/proxyv2",
      args: ["proxy", "sidecar"],
      env: [{ name: "ISTIO_DUAL_STACK", value: "true" }],
      securityContext: { runAsUser: 1337, runAsGroup: 1337 },
    },
  ],
} as const;

export interface SidecarStart {
  /** Starts the sandbox's program in the pod, with these arguments. */
  readonly spawn: (args: readonly string[]) => Child;
  /** Told each time the pod's check has failed, with its exit status. */
  readonly failed: (exitCode: number) => void;
  /** True once the pod is not wanted any more. */
  readonly cancelled: () => boolean;
}

/**
 * Runs the pod's check until it passes, as kubelet does with an init container, then the sidecar.
 * @throws Error when the check ends otherwise than it should, or the pod is cancelled
 */
export async function startSidecar({ spawn, failed, cancelled }: SidecarStart): Promise<SidecarRemote> {
  for (;;) {
    const check = spawn(["sandbox-validation", "4"]);
    check.process.stdout?.resume();
    const { code, signal } = await check.exited;
    if (code === 0) break;
    if (code !== FAILED) throw new Error(`istio-validation ended with ${signal ?? code}`);
    if (cancelled()) throw new Error("the pod was removed before its redirection was there");
    failed(code);
    await new Promise((resolve) => setTimeout(resolve, RESTART_MS));
  }
  const options: SidecarOptions = { uid: 1337, gid: 1337, transparent: false, ipv6: true, services: {} };
  const sidecar = new SidecarRemote(spawn(["sandbox-sidecar", JSON.stringify(options)]));
  await sidecar.until(({ event }) => event === "ready");
  return sidecar;
}
