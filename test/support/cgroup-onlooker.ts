// SPDX-License-Identifier: Apache-2.0
// Looks at a node from inside a container's namespaces: pid, cgroup and mount namespaces of its own, the
// node's /proc bound to a directory. Arguments: that directory, a socket path, pids to place. Says
// "listening", waits for one peer on the socket, then writes one line of JSON.
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
  /** Cgroup of each pid, relative to the hierarchy. */
  readonly placed: readonly (string | undefined)[];
  /** What SO_PEERCRED, the node's proc and our own say of the socket's peer. */
  readonly peer: {
    readonly credential: number;
    readonly onNode: number | undefined;
    readonly here: number | undefined;
  };
}

const [, , procDir = "", socket = "", ...pids] = process.argv;

native().seqpacketListen(socket, 0o600, (connection) => {
  const pidfd = connection.peerPidfd();
  const mounts = new HostMounts(procDir);
  const cgroup2 = mounts.cgroup2();
  const outlook: Outlook = {
    ownPid: process.pid,
    cgroup2: cgroup2.path,
    reason: cgroup2.reason,
    bpffs: mounts.bpffs().path,
    placed: place(cgroup2),
    peer: { credential: connection.peer.pid, onNode: hostPidOf(pidfd, procDir), here: hostPidOf(pidfd, "/proc") },
  };
  process.stdout.write(`${JSON.stringify(outlook)}\n`, () => process.exit(0));
  return { packet: () => {}, end: () => {} };
});
process.stdout.write("listening\n");

function place(mount: ReturnType<HostMounts["cgroup2"]>): (string | undefined)[] {
  if (mount.path === undefined) return [];
  const { path } = mount;
  const vantage = new CgroupVantage(new CgroupHierarchy(path), mount);
  return pids.map((pid) => vantage.ofProcess(new Proc(procDir), Number(pid))?.slice(path.length));
}
