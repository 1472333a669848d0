// SPDX-License-Identifier: Apache-2.0
import { findPod } from "../../core/report/find-pod.ts";
import { isWaiting, type PodReport } from "../../core/report/pods.ts";
import type { ProofReport, VerificationReport } from "../../core/report/proofs.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { sourceLine } from "../render/headline.ts";
import type { Paint, Style } from "../render/paint.ts";
import { aligned } from "../render/table.ts";
import { visible } from "../render/text.ts";

interface VerifyOptions {
  readonly all?: boolean;
  readonly quick?: boolean;
}

type Verified = VerificationReport["pods"][number];

export function addVerify(program: Program): void {
  addCommand<VerifyOptions>(
    program,
    {
      usage: "verify [pods...]",
      summary: "proves by real connections in a pod where its traffic lands",
      examples: [
        "ambient-cni verify shop/web",
        "ambient-cni verify --all               # every captured or sidecar pod of the node",
        "ambient-cni verify --all --quick       # only pods where something failed",
      ],
    },
    (command) =>
      command
        .option("--all", "every captured or sidecar pod")
        .option("--quick", "one line for each pod where all is proved"),
    async (session, { all = false, quick = false }, references) => {
      if (all === references.length > 0) usageError("name the pods, or --all");
      if (session.globals.from !== undefined)
        usageError("verify makes connections on a node: a report can't be verified");
      const source = await session.source();
      const [meant, ...others] = references;
      const query = meant === undefined || others.length > 0 ? {} : { meant };
      const { pods, ...head } = await source.read("pods", query);
      const chosen = all
        ? pods.filter((pod) => PROVABLE.includes(pod.mesh) || isWaiting(pod))
        : references.map((reference) => findPod(pods, reference));
      const verified: Verified[] = [];
      for (const { uid } of chosen) {
        const { pod, proofs, problem } = await source.read("verify", { pod: uid });
        verified.push({ uid, pod, proofs, problem });
      }
      const report: VerificationReport = { ...head, pods: verified };
      await session.print(report, () => sourceLine(head) + verifyText(verified, quick, session.paint));
      if (source.unreachable?.trouble === "broken") return EXIT.unreachable;
      return verified.every(isProved) ? EXIT.ok : EXIT.problem;
    },
  );
}

const PROVABLE: readonly PodReport["mesh"][] = ["enrolled", "captured", "failing", "sidecar"];

const isProved = ({ proofs, problem }: Verified) =>
  problem === null &&
  proofs.every(({ result }) => result !== "failed") &&
  proofs.some(({ result }) => result === "proved");

const SHOWN: Readonly<Record<ProofReport["result"], readonly [string, Style]>> = {
  proved: ["√", "green"],
  failed: ["×", "red"],
  skipped: ["·", "dim"],
};

export function verifyText(pods: readonly Verified[], quick: boolean, paint: Paint): string {
  const blocks = pods.map((one) => (quick && isProved(one) ? verdictText(one, paint) : podText(one, paint)));
  return blocks.length === 0 ? "no pod is captured, and none has a sidecar\n" : blocks.join("");
}

function podText(one: Verified, paint: Paint): string {
  const lines = one.proofs.map(({ row, family, result, evidence, milliseconds }) => {
    const [mark, style] = SHOWN[result];
    return [
      `  ${paint(style, mark)} ${row} IPv${family}`,
      visible(evidence),
      `${milliseconds.toFixed(1).padStart(5)} ms`,
    ];
  });
  return aligned(lines) + verdictText(one, paint);
}

function verdictText({ pod, proofs, problem }: Verified, paint: Paint): string {
  const name = visible(pod);
  if (problem !== null) return `${paint("red", "FAIL")} ${name}: ${visible(problem)}\n`;
  const count = (result: ProofReport["result"]) => proofs.filter((proof) => proof.result === result).length;
  const ms = proofs.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const skipped = count("skipped") > 0 ? `, ${count("skipped")} can't be told` : "";
  const tried = `${count("proved")} of ${proofs.length - count("skipped")} proved${skipped} in ${Math.ceil(ms)} ms`;
  if (count("failed") > 0) return `${paint("red", "FAIL")} ${name}: ${tried}\n`;
  return count("proved") > 0
    ? `${paint("green", "PASS")} ${name}: ${tried}\n`
    : `${paint("yellow", "----")} ${name}: ${tried}\n`;
}
