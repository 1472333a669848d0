// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";

/** CLK_TCK is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

export interface ProcessCost {
  /** User and system time of the process, in seconds. */
  readonly own: number;
  /** The same of its children that have ended. */
  readonly children: number;
}

/** CPU time so far, from /proc/PID/stat (proc(5)). */
export function costOf(pid: number): ProcessCost {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const field = (number: number) => Number(fields[number - 3]) / TICKS_PER_SECOND;
  return { own: field(14) + field(15), children: field(16) + field(17) };
}

export const totalOf = (cost: ProcessCost): number => cost.own + cost.children;

/** Resident set, in MiB. */
export function rssOf(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib ?? 0) / 1024;
}
