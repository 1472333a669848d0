// SPDX-License-Identifier: Apache-2.0
// docs/json.md: the fields of what `-o json` writes, as the schemas have them by which documents are read.
import * as v from "valibot";
import { lineSchema } from "../../src/core/flow/line.ts";
import { checksSchema } from "../../src/core/report/checks.ts";
import { HEAD } from "../../src/core/report/document.ts";
import { enginesSchema } from "../../src/core/report/engines.ts";
import { inspectSchema } from "../../src/core/report/inspect.ts";
import { levelsSchema } from "../../src/core/report/levels.ts";
import { linesSchema } from "../../src/core/report/lines.ts";
import { enrollSchema, unenrollSchema } from "../../src/core/report/manual.ts";
import { planSchema } from "../../src/core/report/plan.ts";
import { podSchema, podsSchema } from "../../src/core/report/pods.ts";
import { resetsSchema, verificationSchema } from "../../src/core/report/proofs.ts";
import { settingsSchema } from "../../src/core/report/settings.ts";
import { statusSchema } from "../../src/core/report/status.ts";
import { traceSchema } from "../../src/core/report/trace.ts";
import { clientVersionsSchema } from "../../src/core/report/versions.ts";

/** As much of a valibot schema as is shown. */
interface Shape extends v.GenericSchema {
  readonly entries?: Readonly<Record<string, Shape>>;
  readonly wrapped?: Shape;
  readonly item?: Shape;
  readonly value?: Shape;
  readonly literal?: unknown;
  readonly options?: readonly unknown[];
}

interface Section {
  readonly command: string;
  readonly schema: Shape;
  readonly note?: string;
}

export const SECTIONS: readonly Section[] = [
  { command: "status", schema: statusSchema },
  { command: "pods", schema: podsSchema },
  { command: "inspect", schema: inspectSchema },
  { command: "verify", schema: verificationSchema },
  { command: "check", schema: checksSchema },
  { command: "engines", schema: enginesSchema },
  { command: "config", schema: settingsSchema },
  { command: "plan", schema: planSchema, note: "Also of `enroll --dry-run`." },
  { command: "trace", schema: traceSchema },
  {
    command: "monitor",
    schema: lineSchema,
    note: "One object a line, told apart by `type`; the first is the head. Addresses are in their canonical form.",
  },
  { command: "log", schema: levelsSchema },
  { command: "log --last", schema: linesSchema },
  { command: "version", schema: clientVersionsSchema },
  { command: "reset-existing", schema: resetsSchema },
  { command: "enroll", schema: enrollSchema },
  { command: "unenroll", schema: unenrollSchema },
];

const INTRODUCTION = `# JSON

Generated from the documents' schemas (\`src/core/report/\`) by \`npx vitest run --project unit test/unit/docs/json.test.ts -u\`.

\`-o json\` and \`-o yaml\` write one document, with the same fields from the agent, from the kernel and from a bug report.
Fields stay as they are while \`schemaVersion\` does; new ones may come, so readers pass over what they don't know.
`;

/** Its fields are told in the section of `pods` alone. */
const POD = "as in [pods](#pods)";

/** @throws Error for a kind of schema that it has no words for */
export function jsonDocument(): string {
  const parts = SECTIONS.map(({ command, schema, note }) => {
    const said = note === undefined ? "" : `${note}\n\n`;
    return `\n## ${command}\n\n${said}${body(schema)}`;
  });
  return `${INTRODUCTION}\n## Every document\n\n${table(fields(HEAD, ""))}${parts.join("")}`;
}

interface Row {
  readonly field: string;
  readonly type: string;
  readonly about: string;
}

function body(schema: Shape): string {
  if (schema.type !== "variant") return table(rowsOf(schema));
  return (schema.options as readonly Shape[])
    .map((one) => `\`type\` ${typeText(one.entries?.type)}: ${v.getDescription(one) ?? ""}\n\n${table(rowsOf(one))}`)
    .join("\n");
}

function rowsOf({ entries = {} }: Shape): Row[] {
  const common: ReadonlySet<unknown> = new Set(Object.values(HEAD));
  return fields(Object.fromEntries(Object.entries(entries).filter(([, field]) => !common.has(field))), "");
}

function fields(entries: Readonly<Record<string, Shape>>, prefix: string): Row[] {
  return Object.entries(entries).flatMap(([name, schema]) => field(schema, `${prefix}${name}`));
}

function field(schema: Shape, path: string): Row[] {
  const { inner, suffix, absence, about } = opened(schema);
  const name = `${path}${suffix}`;
  if (inner.entries === podSchema.entries && name !== "pods[]")
    return [{ field: name, type: `${POD}${absence}`, about }];
  if (inner.type !== "object") return [{ field: name, type: `${typeText(inner)}${absence}`, about }];
  return [{ field: name, type: `object${absence}`, about }, ...fields(inner.entries ?? {}, `${name}.`)];
}

/** What is inside of lists, of what may be null and of what may be missing. */
function opened(schema: Shape): {
  readonly inner: Shape;
  readonly suffix: string;
  readonly absence: string;
  readonly about: string;
} {
  const about = v.getDescription(schema) ?? "";
  const { type, wrapped, item } = schema;
  const within = type === "array" ? item : wrapped;
  if (within === undefined) return { inner: schema, suffix: "", absence: "", about };
  const inside = opened(within);
  return {
    inner: inside.inner,
    suffix: type === "array" ? `[]${inside.suffix}` : inside.suffix,
    absence: `${inside.absence}${ABSENCES[type] ?? ""}`,
    about: about === "" ? inside.about : about,
  };
}

const ABSENCES: Readonly<Record<string, string>> = {
  nullable: " or null",
  optional: ", may be missing",
  nullish: " or null, may be missing",
};

function typeText(schema: Shape | undefined): string {
  if (schema === undefined) return "";
  const { type, options, literal, value } = schema;
  switch (type) {
    case "string":
    case "number":
    case "boolean":
      return type;
    case "literal":
      return `\`${JSON.stringify(literal)}\``;
    case "picklist":
      return (options ?? []).map((one) => `\`${JSON.stringify(one)}\``).join(", ");
    case "record":
      return `object: ${typeText(value)} by name`;
    default:
      throw new Error(`a schema of type ${type} is not described`);
  }
}

function table(rows: readonly Row[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const lines = rows.map(({ field, type, about }) => `| \`${field}\` | ${cell(type)} | ${cell(about)} |\n`);
  return `| field | type | |\n| --- | --- | --- |\n${lines.join("")}`;
}
