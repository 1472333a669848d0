// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test } from "vitest";
import { PODS } from "../../fixtures/reports.ts";
import { cli, withAgent } from "../../support/cli-env.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

async function completed(words: readonly string[], socket = "/nonexistent"): Promise<string[]> {
  const environment = { AMBIENT_CNI_DEBUG_SOCKET: socket };
  const { status, stdout, stderr } = await cli(["complete", "--", ...words], { environment });
  expect([status, stderr]).toEqual([0, ""]);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split("\t")[0] ?? "");
}

test.each<[readonly string[], readonly string[]]>([
  [["sta"], ["status"]],
  [["s"], ["status", "sandbox"]],
  [["comp"], ["completion"]],
  [
    ["status", "--w"],
    ["--wait", "--watch"],
  ],
  [
    ["pods", "--sort", ""],
    ["name", "state", "age", "ip"],
  ],
  [["pods", "-n", ""], []],
  [["pods", "-o", "j"], ["json"]],
  [["-o", "yaml", "stat"], ["status"]],
  [
    ["--socket", "/x", "sandbox", ""],
    ["demo", "run"],
  ],
  [["sandbox", "demo", "--k"], ["--keep"]],
  [
    ["completion", ""],
    ["bash", "zsh", "fish"],
  ],
  [["completion", "bash", ""], []],
  [["nosuch", ""], []],
  [["pods", "we"], []],
])("after %j come %j", async (words, candidates) => {
  expect(await completed(words)).toEqual(candidates);
});

test("every command but the hidden one, and every option of one", async () => {
  const commands = await completed([""]);
  expect(commands).toContain("pods");
  expect(commands).not.toContain("complete");
  for (const option of ["--failing", "--namespace", "--output", "--no-color", "--help"]) {
    expect(await completed(["pods", "-"])).toContain(option);
  }
});

test("pods are completed by their names, once", async () => {
  await withAgent({ pods: PODS }, async (socket) => {
    expect(await completed(["pods", "shop/cart"], socket)).toEqual(["shop/cart-6d9f", "shop/cart-7c31"]);
    expect(await completed(["pods", "-o", "wide", "kube-system/c"], socket)).toEqual(["kube-system/coredns-9x"]);
    expect(await completed(["pods", "shop/web-7f4c", ""], socket)).toEqual([]);
    expect(await completed(["verify", "--quick", "shop/web-7f4c", "shop/b"], socket)).toEqual(["shop/batch-1"]);
  });
});

test("bash completes with what the program says", async () => {
  const { status, stdout: script } = await cli(["completion", "bash"]);
  expect(status).toBe(0);
  using scratch = new ScratchDir();
  // Answers with what it was asked, so that the test sees both ways.
  const program = scratch.file("ambient-cni");
  writeFileSync(program, '#!/bin/bash\nprintf "asked:%s\\twith a description\\n" "$@"\n');
  chmodSync(program, 0o755);
  const session = `${script}
COMP_WORDS=(ambient-cni pods --sort ''); COMP_CWORD=3
_ambient_cni
printf '<%s>' "\${COMPREPLY[@]}"
complete -p ambient-cni`;
  const stdout = await new Promise<string>((resolve, reject) => {
    const env = { PATH: `${dirname(program)}:/usr/bin:/bin` };
    execFile("bash", ["--norc", "-c", session], { env }, (error, out) =>
      error === null ? resolve(out) : reject(error),
    );
  });
  // With names of files where there is no candidate.
  const asked = "<asked:complete><asked:--><asked:pods><asked:--sort><asked:>";
  expect(stdout).toBe(`${asked}complete -o default -F _ambient_cni ambient-cni\n`);
});

test("the other shells' scripts are what they were", async () => {
  const { stdout: zsh } = await cli(["completion", "zsh"]);
  const { stdout: fish } = await cli(["completion", "fish"]);
  await expect(`${zsh}\n${fish}`).toMatchFileSnapshot("golden/completion.txt");
  expect((await cli(["completion", "tcsh"])).status).toBe(2);
});
