// SPDX-License-Identifier: Apache-2.0
// Faults between what installs and the file system, within this process. Refused: one call fails. Torn: one write makes
// half of it and fails, as on a disk that is full. Short: one read or write does half and says so. Killed: from one
// change on every call fails, those that would undo the ones before too. A close closes, whatever it says.
import syncFs from "node:fs";
import fs, { type FileHandle } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { messageOf } from "../../src/core/errors.ts";
import { native } from "../../src/native/load.ts";

export type FileFault = "refused" | "torn" | "short" | "killed";
export const FILE_FAULTS: readonly FileFault[] = ["refused", "torn", "short", "killed"];

type Call = (this: unknown, ...args: never[]) => unknown;
type Owner = Record<string, unknown>;

const OF_PATHS = ["open", "readdir", "readlink", "realpath", "unlink", "lstat", "stat"];
const OF_HANDLES = ["writeFile", "write", "chmod", "chown", "sync", "truncate", "read", "stat", "close"];
const AT_ONCE = ["openSync", "fstatSync", "readSync", "closeSync", "renameSync", "unlinkSync", "lstatSync"];
const OF_ADDON = ["fileExchange", "fileMove"];

const READS = new Set(["readdir", "readlink", "realpath", "lstat", "stat", "read", "close"]);
const READS_AT_ONCE = new Set(["openSync", "fstatSync", "readSync", "closeSync", "lstatSync"]);
const isChange = (name: string) => !READS.has(name) && !READS_AT_ONCE.has(name) && name !== "open";
const isWrite = (name: string) => name === "writeFile" || name === "write";

const { FileHandlePrototype } = await handles();

/** Below one directory. */
export class FileFaults {
  readonly #root: string;
  readonly #look: () => void;
  readonly #open = new Set<unknown>();
  #fault: FileFault = "refused";
  #left = Number.POSITIVE_INFINITY;
  #unmade: string | undefined;
  #seen: unknown;
  #apart = false;
  #undo: (() => void)[] = [];

  /** `look` is called after each change, and throws if something is there that may never be. */
  constructor(root: string, look: () => void) {
    this.#root = root;
    this.#look = look;
  }

  /** The call that met the fault. */
  get unmade(): string | undefined {
    return this.#unmade;
  }

  /** What somebody else does meanwhile, without faults. */
  apart<T>(doing: () => T): T {
    this.#apart = true;
    try {
      return doing();
    } finally {
      this.#apart = false;
    }
  }

  /**
   * Does something with a fault after so many calls that could have it; `full`: also each new file's bytes find no room.
   * Returns the call that was not made, undefined when there were no more than that, and the error.
   * @throws what `look` threw first
   */
  async during(fault: FileFault, calls: number, doing: () => Promise<unknown>, full = false) {
    this.#fault = fault;
    this.#left = calls;
    this.#unmade = undefined;
    this.#seen = undefined;
    let error: unknown;
    this.#intervene(full);
    try {
      await doing();
    } catch (thrown) {
      error = thrown;
    } finally {
      for (const undo of this.#undo.splice(0)) undo();
      syncBuiltinESMExports();
    }
    if (this.#seen !== undefined) throw this.#seen;
    return { unmade: this.#unmade, error };
  }

  #intervene(full: boolean): void {
    for (const name of OF_PATHS) this.#wrap(fs, name, (path) => this.#concerns(path));
    for (const name of AT_ONCE) this.#wrap(syncFs, name, (what) => this.#concerns(what) || this.#open.has(what));
    for (const name of OF_ADDON) this.#wrap(native(), name, (path) => this.#concerns(path));
    for (const name of OF_HANDLES) this.#wrap(FileHandlePrototype, name, (_, handle) => this.#open.has(handle), full);
    syncBuiltinESMExports();
  }

  #concerns(path: unknown): boolean {
    return typeof path === "string" && path.startsWith(this.#root);
  }

  #replace(owner: object, name: string, by: unknown): void {
    const slots = owner as Owner;
    const was = slots[name];
    slots[name] = by;
    this.#undo.push(() => {
      slots[name] = was;
    });
  }

  #wrap(owner: object, name: string, concerns: (first: unknown, self: unknown) => boolean, full = false): void {
    const call = (owner as Owner)[name] as Call;
    const faults = this;
    const through = function (this: unknown, ...args: never[]): unknown {
      if (faults.#apart || !concerns(args[0], this)) return call.apply(this, args);
      const made = (result: unknown) => faults.#after(name, this, args, result);
      if (name.endsWith("Sync") || owner === native()) return made(faults.#make(name, call, this, args));
      return (async () => {
        if (full && name === "writeFile") throw await faults.#torn(call, this, args);
        return made(await faults.#make(name, call, this, args));
      })();
    };
    this.#replace(owner, name, through);
  }

  #make(name: string, call: Call, self: unknown, args: never[]): unknown {
    if (!this.#isDue(name, args)) return call.apply(self, args);
    this.#unmade ??= name;
    if (this.#fault !== "killed") this.#left = Number.POSITIVE_INFINITY;
    if (this.#fault === "short") return call.apply(self, this.#half(name, args));
    if (name === "close" || name === "closeSync") call.apply(self, args);
    // Of a page or less no kill makes a part.
    if (isWrite(name) && !(name === "write" && this.#fault === "killed"))
      return this.#torn(call, self, args).then((error) => Promise.reject(error));
    throw failure("EIO", typeof args[0] === "string" ? `${name} '${args[0]}'` : name);
  }

  async #torn(call: Call, self: unknown, args: never[]): Promise<Error> {
    await call.apply(self, this.#half("writeFile", args));
    return failure("ENOSPC", "write");
  }

  /** (data) of writeFile; (buffer, offset, length, position) of the others, or (fd, ...) of readSync. */
  #half(name: string, args: never[]): never[] {
    const [first, ...rest] = args as unknown[];
    if (name === "writeFile" || rest.length === 0) {
      const bytes = first as Buffer;
      return [bytes.subarray(0, bytes.length / 2), ...rest] as never[];
    }
    const at = name === "readSync" ? 3 : 2;
    return args.map((each, index) => (index === at ? Math.ceil(Number(each) / 2) : each)) as never[];
  }

  #isDue(name: string, args: readonly unknown[]): boolean {
    if (this.#unmade !== undefined) return this.#fault === "killed";
    const could = {
      refused: true,
      torn: isWrite(name),
      short: ["write", "read", "readSync"].includes(name),
      killed: isChange(name) || (name === "open" && args[1] === "wx"),
    };
    if (!could[this.#fault]) return false;
    this.#left -= 1;
    return this.#left < 0;
  }

  #after(name: string, self: unknown, args: readonly unknown[], result: unknown): unknown {
    if (name === "open" || name === "openSync") this.#open.add(result);
    if (name === "close") this.#open.delete(self);
    if (name === "closeSync") this.#open.delete(args[0]);
    if (!isChange(name)) return result;
    try {
      this.apart(this.#look);
    } catch (error) {
      this.#seen ??= new Error(`after ${name} of ${String(args[0])}: ${messageOf(error)}`, { cause: error });
    }
    return result;
  }
}

function failure(code: "EIO" | "ENOSPC", syscall: string): Error {
  const errno = code === "EIO" ? -5 : -28;
  return Object.assign(new Error(`${code}: as a test has it, ${syscall}`), { code, errno, syscall });
}

async function handles(): Promise<{ FileHandlePrototype: object }> {
  const handle: FileHandle = await fs.open("/dev/null", "r");
  await handle.close();
  return { FileHandlePrototype: Object.getPrototypeOf(handle) };
}
