// SPDX-License-Identifier: Apache-2.0
// Kinds of values a setting can have: text in, checked value out, or an Error that says what is expected.
import { parseGoBool } from "../go-bool.ts";
import { canonicalCidr, canonicalIp, type Family, familyOf } from "../ip.ts";
import { isDnsLabel, labelKeyFault, labelValueFault } from "../labels.ts";
import type { EnablementSelector, LabelSelector } from "../selector.ts";
import { type FieldRequirement, parseFieldSelector, parseLabelSelector } from "../selector-text.ts";
import { LOG_LEVELS, type LogLevel } from "./config.ts";
import { parseEnablementSelectors } from "./selectors.ts";

export interface Kind<T> {
  /** For the documentation. */
  readonly name: string;
  /** What viper makes of an empty value of this kind. */
  readonly zero: string;
  parse(text: string): T;
}

const MAX_LIST = 4096;
const MAX_TEXT = 4096;
const fail = (expected: string): never => {
  throw new Error(`must be ${expected}`);
};

export const bool: Kind<boolean> = {
  name: "boolean",
  zero: "false",
  parse: (text) => parseGoBool(text) ?? fail("true or false (or 1, t, T, TRUE, True, 0, f, F, FALSE, False)"),
};

export const text: Kind<string> = {
  name: "text",
  zero: "",
  parse: (value) => (value.length <= MAX_TEXT ? value : fail(`text of at most ${MAX_TEXT} characters`)),
};

/** Value of a setting without effect: whatever it is, it is not read. */
export const unread: Kind<undefined> = { name: "any", zero: "", parse: () => undefined };

export function integer(min: number, max: number): Kind<number> {
  return {
    name: `number ${min}..${max}`,
    zero: "0",
    parse: (value) => {
      const number = /^[+-]?\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
      return number >= min && number <= max ? number : fail(`a whole number from ${min} to ${max}`);
    },
  };
}

/** Zero and below disable what listens there. */
export const port: Kind<number> = { ...integer(-1, 65535), name: "port (0 or less: off)" };

export function oneOf<T extends string>(...known: readonly T[]): Kind<T> {
  return {
    name: known.join(" \\| "),
    zero: "",
    parse: (value) => known.find((one) => one === value) ?? fail(`one of ${known.join(", ")}`),
  };
}

export function optional<T>(kind: Kind<T>): Kind<T | undefined> {
  return { name: kind.name, zero: "", parse: (value) => (value === "" ? undefined : kind.parse(value)) };
}

export const absolutePath: Kind<string> = {
  name: "absolute path",
  zero: "",
  parse: (value) => {
    if (!value.startsWith("/") || value.includes("\0") || value.split("/").includes("..")) {
      return fail("an absolute path without '..'");
    }
    const trimmed = value.replace(/\/+$/, "");
    return trimmed === "" ? "/" : trimmed;
  },
};

/** sun_path of a unix socket has 108 bytes, its closing NUL included. */
export const socketPath: Kind<string> = {
  name: "absolute path of a unix socket",
  zero: "",
  parse: (value) =>
    Buffer.byteLength(absolutePath.parse(value)) < 108 ? absolutePath.parse(value) : fail("shorter than 108 bytes"),
};

/** A name inside a directory, never a way out of it. Empty = choose. */
export function fileName(...extensions: readonly string[]): Kind<string> {
  return {
    name: `file name (${extensions.join(", ")})`,
    zero: "",
    parse: (value) => {
      if (value === "") return value;
      const plain = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/.test(value);
      return plain && extensions.some((extension) => value.endsWith(extension))
        ? value
        : fail(`a plain file name ending in ${extensions.join(" or ")}`);
    },
  };
}

function list<T>(name: string, item: (value: string) => T): Kind<readonly T[]> {
  return {
    name: `${name}, separated by commas`,
    zero: "",
    parse: (value) => {
      const items = value
        .split(",")
        .map((one) => one.trim())
        .filter((one) => one !== "");
      if (items.length > MAX_LIST) fail(`at most ${MAX_LIST} items`);
      return [...new Set(items.map(item))];
    },
  };
}

export const namespaces: Kind<readonly string[]> = list("namespaces", (name) =>
  isDnsLabel(name) ? name : fail(`namespace names, which ${JSON.stringify(name)} is not`),
);

export const cidrs: Kind<readonly string[]> = list("CIDRs", canonicalCidr);

const groupId = (text: string): number =>
  /^\d{1,10}$/.test(text) && Number(text) <= 0xffff_ffff
    ? Number(text)
    : fail("numeric group ids: a name means nothing in the agent's image");

const MAX_GROUPS = 64;
const groupList = list("group ids", groupId);

export const groups: Kind<readonly number[]> = {
  ...groupList,
  parse: (value) => {
    const ids = groupList.parse(value);
    return ids.length <= MAX_GROUPS ? ids : fail(`at most ${MAX_GROUPS} groups`);
  },
};

export const groupsOrAll: Kind<"*" | readonly number[]> = {
  name: `* or ${groups.name}`,
  zero: "",
  parse: (value) => (value === "*" ? "*" : groups.parse(value)),
};

export const logTargets: Kind<readonly string[]> = list("stdout, stderr or absolute paths", (target) =>
  target === "stdout" || target === "stderr" ? target : absolutePath.parse(target),
);

export function address(family: Family): Kind<string> {
  return {
    name: `IPv${family} address`,
    zero: "",
    parse: (value) => {
      const ip = canonicalIp(value);
      return familyOf(ip) === family ? ip : fail(`an IPv${family} address`);
    },
  };
}

export const labelSelector: Kind<LabelSelector> = {
  name: "label selector",
  zero: "",
  parse: (value) => parseLabelSelector(text.parse(value)),
};

export const fieldSelector: Kind<readonly FieldRequirement[]> = {
  name: "field selector",
  zero: "",
  parse: (value) => parseFieldSelector(text.parse(value)),
};

/** `fault` says what is wrong with a value that is not empty. */
function checkedText(name: string, fault: (value: string) => string | undefined): Kind<string> {
  return {
    name,
    zero: "",
    parse: (value) => {
      const wrong = value === "" ? undefined : fault(value);
      return wrong === undefined ? value : fail(`a ${name}: ${wrong}`);
    },
  };
}

export const labelKey: Kind<string> = checkedText("label key", labelKeyFault);
export const labelValue: Kind<string> = checkedText("label value", labelValueFault);

export const selectors: Kind<readonly EnablementSelector[]> = {
  name: "YAML list of {podSelector, namespaceSelector}",
  zero: "",
  parse: parseEnablementSelectors,
};

/** `level` or `scope:level,...`; `all` sets every scope that is not named after it. */
export const logLevels: Kind<ReadonlyMap<string, LogLevel>> = {
  name: "`level` or `scope:level,...`",
  zero: "",
  parse: (value) => {
    const levels = new Map<string, LogLevel>([["default", "info"]]);
    for (const part of value.split(",")) {
      const pieces = part.trim().split(":");
      const [scope, word] = pieces.length === 1 ? ["default", pieces[0] ?? ""] : [pieces[0] ?? "", pieces[1] ?? ""];
      const level = LOG_LEVELS.find((known) => known === word);
      if (pieces.length > 2 || level === undefined || !/^[A-Za-z0-9_.-]{1,64}$/.test(scope)) {
        fail(`scope:level pairs with levels ${LOG_LEVELS.join(", ")}, which ${JSON.stringify(part)} is not`);
      } else if (scope === "all") {
        levels.clear();
        levels.set("default", level);
      } else {
        levels.set(scope, level);
      }
    }
    if (levels.size > 256) fail("at most 256 scopes");
    return levels;
  },
};

const UNITS: Readonly<Record<string, number>> = { "": 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };

/** Go's GOMEMLIMIT: bytes, undefined = no limit. */
export const goMemory: Kind<number | undefined> = {
  name: "bytes, or with B, KiB, MiB, GiB, TiB; off",
  zero: "",
  parse: (value) => {
    if (value === "" || value === "off") return undefined;
    const [, digits, unit = ""] = /^(\d{1,15})(B|KiB|MiB|GiB|TiB)?$/.exec(value) ?? [];
    return digits === undefined
      ? fail("bytes, such as 104857600 or 100MiB, or off")
      : Number(digits) * (UNITS[unit] ?? 1);
  },
};
