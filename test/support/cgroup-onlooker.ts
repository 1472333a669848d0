// SPDX-License-Identifier: Apache-2.0
// Looks at a node from inside a container's namespaces: pid, cgroup and mount namespaces of its own, the
// node's /proc bound to a directory. Arguments after "--": that directory, a socket path, pids to place.
// Says "listening", waits for one peer on the socket, then writes one line of JSON.
import { mkdirSync, rmdirSync } from "node:fs";
import { native } from "../../src/native/load.ts";
import { CgroupHierarchy } from "../../src/sys/cgroup.ts";
import { CgroupVantage } from "../../src/sys/cgroup-vantage.ts";
import { HostMounts } from "../../src/sys/mounts.ts";
import { hostPidOf } from "../../src/sys/peer.ts";
import { Proc } from "../../src/sys/proc.ts";

export interface Outlook {
  readonly ownPid: number;
  readonly cgroup2: string | undefined;
  readonly reason: string | undefined;
  readonly bpffs: string | undefined;
  readonly noBpffs: string | undefined;
  /** Something could be made in it and removed. */
  readonly bpffsWritable: boolean;
  /** Cgroup of each pid, relative to the hierarchy. */
  readonly placed: readonly (string | undefined)[];
  /** What SO_PEERCRED, the node's proc and our own say of the socket's peer. */
  readonly peerCgroup: string | undefined;
  readonly peer: {
    readonly credential: number;
    readonly onNode: number | undefined;
    readonly here: number | undefined;
  };
}

const [procDir = "", socket = "", ...pids] = process.argv.slice(process.argv.indexOf("--") + 1);

native().seqpacketListen(socket, 0o600, (connection) => {
  const pidfd = connection.peerPidfd();
  const mounts = new HostMounts(procDir);
  const cgroup2 = mounts.cgroup2();
  const bpffs = mounts.bpffs();
  const onNode = hostPidOf(pidfd, procDir);
  const outlook: Outlook = {
    ownPid: process.pid,
    cgroup2: cgroup2.path,
    reason: cgroup2.reason,
    bpffs: bpffs.path,
    noBpffs: bpffs.reason,
    bpffsWritable: bpffs.path !== undefined && writable(bpffs.path),
    placed: place(cgroup2, pids.map(Number)),
    peerCgroup: place(cgroup2, [onNode ?? 0])[0],
    peer: { credential: connection.peer.pid, onNode, here: hostPidOf(pidfd, "/proc") },
  };
  process.stdout.write(`${JSON.stringify(outlook)}\n`, () => process.exit(0));
  return { packet: () => {}, end: () => {} };
});
process.stdout.write("listening\n");

function writable(bpffs: string): boolean {
  const directory = `${bpffs}/onlooker`;
  mkdirSync(directory);
  rmdirSync(directory);
  return true;
}

function place(mount: ReturnType<HostMounts["cgroup2"]>, wanted: readonly number[]): (string | undefined)[] {
  if (mount.path === undefined) return [];
  const { path } = mount;
  const vantage = new CgroupVantage(new CgroupHierarchy(path), mount);
  return wanted.map((pid) => vantage.ofProcess(new Proc(procDir), pid)?.slice(path.length));
}
