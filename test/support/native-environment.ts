// SPDX-License-Identifier: Apache-2.0
// Loads the addon in workers that end with everything open, then says what is left in the process.
// Runs in a process of its own: a mistake in the addon's teardown is an abort. Arguments: the addon, a
// directory for sockets.
import { createRequire } from "node:module";
import { runInThisContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { ourFds } from "./process-fds.ts";

const [, , addon = "", dir = ""] = process.argv;

const OPEN_EVERYTHING = `
const { workerData, parentPort } = require("node:worker_threads");
const { addon, path } = workerData ?? { addon: process.argv[2], path: process.argv[3] + "/main.sock" };
const announce = globalThis.announce ?? (() => parentPort.postMessage("open"));
const native = require(addon);
const netns = native.netnsCreate();
const quiet = { packet() {}, end() {} };
native.seqpacketListen(path, 0o600, (connection) => {
  setImmediate(announce);
  return { ...quiet, packet: (message) => connection.send(message) };
});
// Packets go to and fro for ever, so that the end comes in the midst of callbacks.
const client = native.seqpacketConnect(path, { ...quiet, packet: (message) => client.send(message) });
for (let i = 0; i < 50; i++) client.send(Buffer.from("ball"));
native.routeWatch(netns, () => {});
native.nftWatch(netns, () => {});
native.vethAdd(netns, "a0", "b0", netns);
native.linkUp(netns, "a0");
native.linkUp(netns, "b0");
native.addressAdd(netns, "a0", "10.0.0.1", 24);
// Nobody has that address, and the kernel asks for it once in ten minutes: it is still pending at the end.
native.sysctlSet(netns, "net/ipv4/neigh/a0/retrans_time_ms", "600000");
native.tcpConnect(netns, { family: 4, address: "10.0.0.9", port: 1, timeout: 60000 }).catch(() => {});
native.spawn(netns, { argv: ["sleep", "60"], env: ["PATH=/usr/bin:/bin"], timeoutMs: 60000, maxStdout: 9, maxStderr: 9 });
native.close(netns);
`;

async function runWorker(path: string, end: (worker: Worker) => void): Promise<void> {
  const worker = new Worker(OPEN_EVERYTHING, { eval: true, execArgv: [], workerData: { addon, path } });
  const exit = new Promise<void>((resolve, reject) => {
    worker.on("error", reject);
    worker.on("exit", () => resolve());
  });
  worker.on("message", () => end(worker));
  await exit;
}

// The main thread has everything open too, at its own end.
await new Promise((resolve) => {
  Object.assign(globalThis, { announce: resolve });
  runInThisContext(`((require) => {${OPEN_EVERYTHING}})`)(createRequire(import.meta.url));
});
const before = ourFds().length;
for (let i = 0; i < 20; i++) {
  await runWorker(`${dir}/${i}.sock`, (worker) => void worker.terminate());
}
console.log(JSON.stringify({ left: ourFds().length - before }));
process.exit(0);
