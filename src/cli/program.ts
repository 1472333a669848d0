// SPDX-License-Identifier: Apache-2.0

/**
 * The one program. As `install-cni` it takes istio-cni's flags and environment and is the agent; all
 * other words are commands for people. What the agent does not need is loaded only for who asks for it:
 * it would be memory on every node. Resolves with the exit status.
 */
export async function main(argv: readonly string[]): Promise<number> {
  const [first, ...rest] = argv;
  // Not commander's business: unknown flags of the stock chart must not stop the node's agent.
  if (first === "install-cni" && !rest.includes("--help") && !rest.includes("-h")) {
    const { runAgent } = await import("./agent-command.ts");
    return runAgent(rest, process.env);
  }
  // Programs inside the sandbox, started by the sandbox itself.
  if (first === "sandbox-app") {
    const { runApp } = await import("../sandbox/app/main.ts");
    runApp(rest[0] ?? "app");
    return new Promise(() => undefined);
  }
  if (first === "sandbox-sidecar") {
    const { runSidecar } = await import("../sandbox/sidecar/main.ts");
    runSidecar(rest[0] ?? "");
    return new Promise(() => undefined);
  }
  if (first === "sandbox-validation") {
    const { runValidation } = await import("../sandbox/sidecar/validation.ts");
    runValidation(rest[0] === "6" ? 6 : 4);
    return new Promise(() => undefined);
  }
  if (first === "sandbox-ztunnel") {
    const { main: runZtunnel } = await import("../sandbox/ztunnel/main.ts");
    return runZtunnel(process.env);
  }
  const [{ runCommand }, { endWithItsOutput, processEnv }] = await Promise.all([
    import("./commands.ts"),
    import("./env.ts"),
  ]);
  endWithItsOutput();
  return runCommand(argv, processEnv());
}
