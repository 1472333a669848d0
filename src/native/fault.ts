// SPDX-License-Identifier: Apache-2.0

/** What the addon throws when the kernel refuses something; shaped like Node's own system errors. */
export class NativeError extends Error {
  override readonly name: string = "NativeError";
  /** Name of the errno, e.g. `EEXIST`. */
  readonly code: string;
  /** Negative, as in Node. */
  readonly errno: number;
  /** The system call, or `netlink` when the kernel answered a netlink request. */
  readonly syscall: string;

  /** Called by the addon (native/fault.cc): the order of the parameters is part of its ABI. */
  constructor(message: string, code: string, errno: number, syscall: string) {
    super(message);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** True when `error` came from the addon with one of these codes. */
export function isNativeError(error: unknown, ...codes: readonly string[]): error is NativeError {
  return error instanceof NativeError && (codes.length === 0 || codes.includes(error.code));
}
