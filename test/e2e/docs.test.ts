// SPDX-License-Identifier: Apache-2.0
// The documentation's first page, done as it says; and in the same playground every other command of ours that a page
// shows (test/support/shown), each typed as it stands there. test/unit/docs/shown.test.ts says that none is forgotten.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { type Ended, type Going, Playground, type Said } from "../support/playground.ts";
import { ScratchDir } from "../support/scratch-dir.ts";
import type { Typed } from "../support/shown/line.ts";
import { COUNTED, RECORDED, STREAMS } from "../support/shown/streams.ts";
import * as shown from "../support/shown/typed.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PLAYGROUND = "scenarios/playground.yaml";
const page = (path: string): string => readFileSync(`${ROOT}${path}`, "utf8");

/** A scenario of somebody's. */
const BUG = `title: A bug
namespaces: { shop: { istio.io/dataplane-mode: ambient } }
pods: { shop/web: {} }
steps:
  - start: agent
  - { run: engines, expect: { status: 0, contains: iptables } }
`;

/** A network namespace that is nobody's, with the addresses that the pages capture it by; prints a process of it. */
const MAKE_LAB = [
  "ip netns add lab",
  "ip -n lab link add eth0 type veth peer name up0",
  "for one in lo eth0 up0; do ip -n lab link set $one up; done",
  "ip -n lab address add 10.9.0.2/24 dev eth0",
  "ip -n lab address add fd00:9::2/64 dev eth0 nodad",
  "ip netns exec lab sleep 1000 </dev/null >/dev/null 2>&1 & echo $!",
].join("\n");

/** Its name is not in this line itself. */
const KILL_AGENT = `for pid in $(cd /proc && echo [0-9]*); do
  if tr '\\0' ' ' </proc/$pid/cmdline 2>/dev/null | grep -q ' [i]nstall-cni'; then kill -9 $pid; fi
done`;

function expectToSay(typed: Typed, said: Said): void {
  expect(said.status, `${typed.line}\n${said.stdout}${said.stderr}`).toBe(0);
  expectToPrint(typed, said);
}

function expectToPrint({ line, says, notes }: Typed, { stdout, stderr }: Omit<Said, "status">): void {
  for (const pattern of says) expect(stdout, `${line}\n${stderr}`).toMatch(pattern);
  if (notes === undefined) expect(stderr, line).toBe("");
  else expect(stderr, line).toMatch(notes);
}

async function typeAll(ground: Playground, all: readonly Typed[]): Promise<void> {
  for (const typed of all) expectToSay(typed, await ground.type(typed.as ?? typed.line));
}

/** What stands for a line that is typed anyway is not typed again, nor what the first page has. */
function once(all: readonly Typed[], before: readonly string[] = []): Typed[] {
  return all.filter(({ line, as }) => !before.includes(as ?? line) && !all.some((other) => other.line === as));
}

/** docs/START.md from its first line to its last. */
async function followFirstPage(ground: Playground): Promise<readonly string[]> {
  const start = page("docs/START.md");
  for (const line of start.matchAll(/^ {2}√ (.*)$/gm)) expect(ground.printed).toContain(line[0]);
  const lines = [...start.matchAll(/^(ambient-cni .*)$/gm)].map(([, line = ""]) => line);
  const [status = "", pods = "", monitor = "", request = "", ...more] = lines;
  expect([monitor, request]).toEqual(shown.START_PAGE);
  await typeAll(ground, [status, pods].map(knownAs));

  // The verdict as the page shows it, but for the time of day.
  const flow = /^\d\d:\d\d:\d\d\.\d{3} (out .*)$/m.exec(start)?.[1] ?? "none";
  const verdicts = ground.begin(monitor);
  try {
    // A person's monitor shows the request that is made once it runs; it does not say when that is.
    const answered = { server: "cart", clientSeen: expect.stringMatching(/^10\.66\.0\.2:/) };
    await expect
      .poll(
        async () => {
          expect(JSON.parse((await ground.type(request)).stdout)).toMatchObject(answered);
          return verdicts.stdout;
        },
        { timeout: 20_000, interval: 200 },
      )
      .toContain(flow);
  } finally {
    await verdicts.interrupt();
  }
  expect(verdicts.stderr).toMatch(COUNTED);
  await typeAll(ground, more.map(knownAs));
  return lines;
}

/** @throws Error for a line of the first page that nobody knows what to expect of */
function knownAs(line: string): Typed {
  const known = [...shown.LOOKS, ...shown.PROOFS].find((typed) => typed.line === line);
  if (known === undefined) throw new Error(`${line} is not in test/support/shown/typed.ts`);
  return known;
}

/** Without time, duration and the ports of clients. */
const settled = (line: string): string =>
  line
    .replace(/^\d\d:\d\d:\d\d\.\d{3}/, "TIME")
    .replace(/ +\d+\.\d ms/, " MS")
    .replace(/([\d\]]):[2-6]\d{4}\b/g, "$1:PORT");

/** What docs/MONITOR.md shows below a prompt with this command. */
function shownBelow(command: RegExp): string[] {
  const block = page("docs/MONITOR.md")
    .split("```")
    .find((text) => command.test(text));
  return (block ?? "").split("\n").map(settled);
}

/** All streams at once, until each has told what it is asked for; and docs/MONITOR.md's flows, in one of them. */
async function watch(ground: Playground, directory: string): Promise<void> {
  const going = STREAMS.map((typed) => ({ typed, stream: ground.begin(typed.line) }));
  const heard = ({ typed: { line }, stream }: { typed: Typed; stream: Going }): string => {
    const [, file] = / > (\S+)$/.exec(line) ?? [];
    return file === undefined ? stream.stdout : readFileSync(`${directory}/${file}`, "utf8");
  };
  const calls = (pod: string, ...urls: readonly string[]) =>
    ground.type(`ambient-cni inspect ${pod} --netns-shell -- curl -s --max-time 5 ${urls.join(" ")}`);
  try {
    const unheard = () =>
      going.flatMap((one) =>
        one.typed.says.filter((pattern) => !pattern.test(heard(one))).map((it) => [one.typed.line, it]),
      );
    const called = async () => {
      await calls(
        "shop/web",
        "http://10.66.0.3:8080/",
        "http://10.66.0.2:8080/",
        "http://10.96.0.20/",
        "http://10.66.0.2:15001/",
      );
      return unheard();
    };
    await expect.poll(called, { timeout: 30_000, interval: 100 }).toEqual([]);

    const flows = shownBelow(/^\n\$ ambient-cni monitor /).filter((line) => line.startsWith("TIME"));
    expect(flows.length).toBeGreaterThan(8);
    const stream = going[0]?.stream;
    const untold = async () => {
      await calls("shop/web", "http://[fd66::3]:8080/");
      await calls("legacy/batch", "http://10.66.0.3:8080/");
      await ground.typeOnNode("curl -s http://10.66.0.3:8080/");
      const told = (stream?.stdout ?? "").split("\n").map(settled);
      // With -o wide the same line goes on.
      return flows.filter((flow) => !told.some((line) => line !== "" && flow.startsWith(line)));
    };
    await expect.poll(untold, { timeout: 30_000, interval: 100 }).toEqual([]);

    for (const { typed, stream: ui } of going) {
      if (!typed.line.startsWith("ambient-cni ui")) continue;
      expect((await ground.typeOnNode(`curl -s ${ui.stdout.trim()}`)).stdout, typed.line).toMatch(/^<!doctype html>/i);
    }
  } finally {
    for (const { stream } of going) await stream.interrupt();
  }
  for (const one of going) expectToPrint(one.typed, { stdout: heard(one), stderr: one.stream.stderr });
}

async function traceAsShown(ground: Playground): Promise<void> {
  const text = shownBelow(/\$ ambient-cni trace /).join("\n");
  for (const line of shown.TRACE_PAGE) {
    const traced = async () => `$ ${line}\n${(await ground.type(line)).stdout.split("\n").map(settled).join("\n")}`;
    // On a busy machine what ztunnel does comes too late for the hop that waits for it.
    await expect.poll(async () => text.includes(await traced()), { timeout: 30_000, message: line }).toBe(true);
  }
}

test("the first page works as it is written, and so does every command of ours on every page", async () => {
  const { scripts } = JSON.parse(page("package.json")) as { scripts: Record<string, string> };
  expect(page("docs/START.md")).toContain("npm run playground");
  expect(scripts.playground).toBe("scripts/demo --playground");
  expect(shown.KEPT.as).toBe(`ambient-cni sandbox run ${PLAYGROUND} --keep`);
  expect(page("scripts/demo")).toContain(`sandbox run ${PLAYGROUND} --keep "$@"`);

  using scratch = new ScratchDir();
  const began = performance.now();
  const ground = await Playground.keep(PLAYGROUND, scratch.path);
  let another: Promise<void> | undefined;
  let ended: Ended | undefined;
  try {
    const first = await followFirstPage(ground);
    // The machine's part of the five minutes, but for what is installed and built before.
    expect(performance.now() - began).toBeLessThan(120_000);

    await watch(ground, scratch.path);
    await typeAll(ground, RECORDED);
    writeFileSync(`${scratch.path}/bug.yaml`, BUG);
    another = typeAll(ground, [shown.ANOTHER]);
    another.catch(() => undefined);
    await Promise.all([
      typeAll(ground, once(shown.LOOKS, first)),
      typeAll(ground, once(shown.PROOFS, first)).then(() => traceAsShown(ground)),
    ]);
    // Where they were typed, not on the node.
    expect(existsSync(`${scratch.path}/report.tgz`)).toBe(true);
    const lab = (await ground.typeOnNode(MAKE_LAB)).stdout.trim();
    expect(lab).toMatch(/^\d+$/);
    await typeAll(
      ground,
      once(shown.CHANGES).map((typed) => ({ ...typed, as: (typed.as ?? typed.line).replace("/4711/", `/${lab}/`) })),
    );
    await another;
    await ground.typeOnNode(KILL_AGENT);
    const away = async () => (await ground.type("ambient-cni status --brief")).status;
    await expect.poll(away, { timeout: 30_000, interval: 100 }).toBe(3);
    await typeAll(ground, shown.REMOVAL);
  } finally {
    await another?.catch(() => undefined);
    ended = await ground.end();
  }
  expect(ended).toEqual({ status: 130, left: [] });
});
