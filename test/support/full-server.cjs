// SPDX-License-Identifier: Apache-2.0
// A SEQPACKET server that can be told to use up its fds. Arguments: the addon, the socket's path. Words
// on stdin, each answered with a line of JSON: fill, free, cpu.
const { openSync, closeSync } = require("node:fs");
const { createInterface } = require("node:readline");

const [, , addon, path] = process.argv;
const native = require(addon);
let accepted = 0;
const fds = [];
native.seqpacketListen(path, 0o600, () => {
  accepted++;
  return { packet() {}, end() {} };
});
const words = {
  fill() {
    for (;;) {
      try {
        fds.push(openSync("/dev/null"));
      } catch {
        return;
      }
    }
  },
  free() {
    for (const fd of fds.splice(0)) closeSync(fd);
  },
  cpu() {},
};
createInterface({ input: process.stdin }).on("line", (word) => {
  words[word]();
  const { user, system } = process.cpuUsage();
  process.stdout.write(`${JSON.stringify({ cpu: (user + system) / 1000, accepted })}\n`);
});
