// SPDX-License-Identifier: Apache-2.0
// How the node gets its own configurations back: pure, from one look at the directory. Found by content,
// not by what some run wrote down, so that it works years later and from another program.
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Config } from "../src/core/config/config.ts";
import { type ConfDir, type ConfFile, SET_ASIDE } from "./conf-dir.ts";
import { asList, unmerge } from "./conflist.ts";
import { parseList } from "./netconf.ts";
import { encode } from "./placement.ts";
import { convertedFrom, hasOurs, isCopy, onlyOurs, originalName } from "./primary.ts";
import { isStandalone } from "./standalone.ts";
import type { Step } from "./step.ts";

export interface Removal {
  /** Each a change of its own; of one whose step fails, the later steps must not be taken. */
  readonly changes: readonly (readonly Step[])[];
  /** What was left, and why. */
  readonly warnings: readonly string[];
  /** Why files were not looked at that may hold something of ours. */
  readonly unread: readonly Error[];
}

/** `originals`: content of the files under originalName() by the name they had, or why it can't be read. */
export function removal(
  dir: ConfDir,
  setAside: readonly ConfFile[],
  originals: ReadonlyMap<string, Buffer | Error>,
  config: Pick<Config, "istioOwnedConfigName">,
): Removal {
  const changes: Step[][] = [];
  const warnings: string[] = [];
  const unread = dir.passedOver.flatMap((each) => (each.unread === undefined ? [] : [each.unread]));
  const unused = new Map(originals);
  const ours = [...dir.files, ...setAside].filter(({ conf }) => hasOurs(conf));
  for (const file of ours) {
    if (isCopy(dir, { ...file, name: shownName(file.name) }, config.istioOwnedConfigName) || isStandalone(file.conf)) {
      changes.push([{ do: "remove", path: file.path, was: file.bytes }]);
      continue;
    }
    if (onlyOurs(file.conf)) {
      warnings.push(
        `${file.path} is left: our plugin is its only one, and whoever wrote it has to say what comes instead`,
      );
      continue;
    }
    const name = originalOf(file, unused);
    const original = name === undefined ? undefined : unused.get(name);
    if (name === undefined || original === undefined) {
      // Made, but what it was made from was not set aside any more: that is still the one that counts.
      const from = convertedFrom(file.conf);
      const source = from !== undefined && dir.names.has(from);
      changes.push([source ? { do: "remove", path: file.path, was: file.bytes } : takenOut(file)]);
      continue;
    }
    unused.delete(name);
    if (original instanceof Error) {
      unread.push(original);
      continue;
    }
    changes.push(givenBack(dir, file, name, original));
    if (!isConversionOf(file, original))
      warnings.push(`${file.path} has been changed since it was made from ${name}, and stays a list`);
  }
  for (const [name, original] of unused) {
    const path = join(dir.path, originalName(name));
    if (original instanceof Error) unread.push(original);
    else if (dir.names.has(name)) changes.push([{ do: "remove", path, was: original }]);
    else warnings.push(`${path} is left: the list made from it is gone`);
  }
  return { changes, warnings, unread };
}

const shownName = (name: string): string => (name.endsWith(SET_ASIDE) ? name.slice(0, -SET_ASIDE.length) : name);

/** Name of the file that this list was made from, if its original is still there. */
function originalOf(file: ConfFile, originals: ReadonlyMap<string, Buffer | Error>): string | undefined {
  if (file.conf.kind !== "list") return undefined;
  const stem = shownName(file.name).slice(0, -".conflist".length);
  // The names, should istio-cni have put its own entry in the place of ours meanwhile.
  const names = [convertedFrom(file.conf) ?? "", stem, `${stem}.conf`, `${stem}.json`];
  return names.find((name) => originals.has(name));
}

function isConversionOf(file: ConfFile, original: Buffer): boolean {
  try {
    const [now, then] = [parseList(unmerge(file.text) ?? ""), parseList(asList(original.toString("latin1")))];
    return now.name === then.name && isDeepStrictEqual(now.plugins, then.plugins);
  } catch {
    return false;
  }
}

function takenOut(file: ConfFile): Step {
  const bytes = encode(unmerge(file.text) ?? file.text);
  // The node must get it back also with a full disk.
  const shortens = true;
  return { do: "write", path: file.path, was: file.bytes, bytes, mode: file.mode, owner: file.owner, shortens };
}

function givenBack(dir: ConfDir, file: ConfFile, name: string, original: Buffer): Step[] {
  const kept = join(dir.path, originalName(name));
  const discard: Step = { do: "remove", path: kept, was: original };
  if (!isConversionOf(file, original)) return [takenOut(file), discard];
  const drop: Step = { do: "remove", path: file.path, was: file.bytes, later: true };
  const target = file.name.endsWith(SET_ASIDE) ? `${name}${SET_ASIDE}` : name;
  // Written anew by its CNI meanwhile: that one counts.
  if (dir.names.has(target)) return [drop, discard];
  return [{ do: "rename", path: kept, was: original, to: join(dir.path, target) }, drop];
}
