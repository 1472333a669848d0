// SPDX-License-Identifier: Apache-2.0
import { getSystemErrorMap } from "node:util";
import { AgentError, codeOf, messageOf } from "../src/core/errors.ts";

interface Explanation {
  readonly code: string;
  readonly remedy: string;
}

const NOT_PERMITTED: Explanation = {
  code: "NOT_PERMITTED",
  remedy:
    "the agent must be root with CAP_DAC_OVERRIDE, SELinux needs seLinuxOptions (spc_t), and the file must not be immutable (lsattr)",
};
const DISK_FULL: Explanation = { code: "DISK_FULL", remedy: "free space on the node's disk; the agent tries again" };
const NO_PATH: Explanation = {
  code: "BAD_PATH",
  remedy: "set cniBinDir and cniConfDir to the node's directories, as they are mounted into the agent",
};

const EXPLANATIONS: Readonly<Record<string, Explanation>> = {
  EROFS: {
    code: "READ_ONLY",
    remedy: "the distribution keeps its CNI files elsewhere: set global.platform, or cniBinDir and cniConfDir",
  },
  ENOSPC: DISK_FULL,
  EDQUOT: DISK_FULL,
  EACCES: NOT_PERMITTED,
  EPERM: NOT_PERMITTED,
  ENOTDIR: NO_PATH,
  EISDIR: NO_PATH,
  EEXIST: NO_PATH,
  ELOOP: NO_PATH,
  ENOENT: NO_PATH,
  EBUSY: { code: "MOUNT_POINT", remedy: "mount the node's CNI directories into the agent, not single files of them" },
};

/** Of any other errno: a disk or a file system that fails. */
const FAILED: Explanation = { code: "NODE_FILES", remedy: "see the node's kernel log; the agent tries again" };

/** An error of the node's file system with what to do about it; errors that say so already stay as they are. */
export function nodeFault(error: unknown, path: string): Error {
  if (error instanceof AgentError) return error;
  const number = error instanceof Error && "errno" in error ? Number(error.errno) : 0;
  // Without the system call and its arguments: the name of a temporary file is different each time.
  const [code, text] = getSystemErrorMap().get(-Math.abs(number)) ?? [];
  if (code === undefined) return error instanceof Error ? error : new Error(messageOf(error));
  const explanation = EXPLANATIONS[codeOf(error)] ?? FAILED;
  return new AgentError(explanation.code, `${path}: ${code}: ${text}`, explanation.remedy, { cause: error });
}
