// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../core/errors.ts";
import { addCommand, type Program, type Session, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { isTable } from "../globals.ts";
import type { RemovalOutcome } from "../removal/node-removal.ts";
import type { TakenStep } from "../removal/steps.ts";
import { visible } from "../render/text.ts";

interface RemoveOptions {
  readonly hostRoot?: string;
  readonly cniNetDir?: string;
  readonly uncapture?: boolean;
  readonly dryRun?: boolean;
  readonly force?: boolean;
}

export function addRemove(program: Program): void {
  addCommand<RemoveOptions>(
    program,
    {
      usage: "remove",
      summary: "gives the node back once the agent is gone: CNI configuration, host objects, pods",
      examples: [
        "ambient-cni remove --dry-run          # what would be done",
        "ambient-cni remove --host-root /host  # from kubectl debug node/NAME --profile=sysadmin",
        "ambient-cni remove --uncapture        # captured pods too: their traffic is plain text then",
      ],
    },
    (command) =>
      command
        .option("--host-root <dir>", "where the node's file system is; / on the node itself")
        .option("--cni-net-dir <dir>", "the node's directory of CNI configurations, as on the node (k3s, microk8s)")
        .option("--uncapture", "release captured pods; else they stay so, and it is said which")
        .option("--dry-run", "only say what would be done")
        .option("--force", "also while an agent is running"),
    remove,
  );
}

async function remove(session: Session, options: RemoveOptions): Promise<number> {
  const { uncapture = false, dryRun = false, force = false } = options;
  if (session.globals.from !== undefined) usageError("--from reads a report, and this changes a node");
  for (const path of [options.hostRoot, options.cniNetDir]) {
    if (path !== undefined && !path.startsWith("/")) usageError(`${path} is not an absolute path`);
  }
  const [{ viewNode }, { removeFromNode }, { rootedPath }] = await Promise.all([
    import("../source/kernel/node-view.ts"),
    import("../removal/node-removal.ts"),
    import("../../sys/rooted.ts"),
  ]);
  const { env, globals } = session;
  const environment = options.hostRoot === undefined ? env.environment : atRoot(env.environment, options.hostRoot);
  const view = viewNode({ ...env, environment }, "remove");
  const { hostRoot } = view.config;
  const netDir = options.cniNetDir ?? inside(view.config.cniNetDir, hostRoot);
  const config = { ...view.config, cniNetDir: rootedPath(hostRoot, netDir) };
  const isText = isTable(globals.format);
  const warnings: string[] = [];
  const outcome = await removeFromNode({
    config,
    binding: view.binding,
    uncapture,
    dryRun,
    force,
    told: (step) => {
      if (isText) env.stdout.write(`${stepText(step)}\n`);
    },
    warned: (message) => {
      warnings.push(message);
      if (isText) env.stderr.write(`${visible(message)}\n`);
    },
  });
  const captured = outcome.captured.map(({ uid, pod, engines, handedOver }) => ({ uid, pod, engines, handedOver }));
  const document = { ...view.head(), dryRun, steps: outcome.steps, captured, warnings };
  await session.print(document, () => outcomeText(outcome));
  if (!outcome.failed) return EXIT.ok;
  return outcome.denied ? EXIT.denied : EXIT.problem;
}

function stepText({ did, what, problem }: TakenStep): string {
  return visible(`${did} ${what}${problem === null ? "" : `: ${problem}`}`);
}

export function outcomeText({ steps, captured }: Pick<RemovalOutcome, "steps" | "captured">): string {
  const lines = captured.map(({ pod, engines, handedOver }) => {
    const by = engines.join(", ") || "unreadable";
    return handedOver
      ? `pod ${pod} is istio-cni's; what is left of ${by} in it goes with it`
      : `pod ${pod} stays captured (${by})`;
  });
  if (captured.some(({ handedOver }) => !handedOver))
    lines.push("captured pods keep what they need on the host; --uncapture releases them");
  else if (steps.length + captured.length === 0)
    lines.push("nothing of ours is left on this node but the plugin, by which running pods are torn down");
  return lines.map((line) => `${visible(line)}\n`).join("");
}

function atRoot(environment: Session["env"]["environment"], root: string): Session["env"]["environment"] {
  const path = root.replace(/\/+$/, "") || "/";
  if (path.includes("\0")) throw new AgentError("USAGE", "--host-root is no path");
  return { ...environment, AMBIENT_CNI_HOST_ROOT: path };
}

/** The path on the node, for the links in it. */
function inside(path: string, root: string): string {
  return root !== "/" && path.startsWith(`${root}/`) ? path.slice(root.length) : path;
}
