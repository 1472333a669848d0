// SPDX-License-Identifier: Apache-2.0
import { basename } from "node:path";
import { AgentError, messageOf } from "../../core/errors.ts";
import { type DocumentName, type Documents, parseDocument } from "../../core/report/documents.ts";
import { readBounded } from "../../sys/files.ts";
import { documentPath, ERRORS, isPlainName, REPORT_MAX_BYTES } from "../bugreport/layout.ts";
import { unpackReport } from "../bugreport/unpack.ts";
import type { Query, SessionSource } from "./source.ts";
import { AgentUnreachable } from "./unreachable.ts";

/** What a bug report holds, read as if its node were asked. */
export class ReportSource implements SessionSource {
  /** Set as on the node, for documents that were made without the agent. */
  unreachable: AgentUnreachable | undefined;

  constructor(
    private readonly file: string,
    private readonly files: ReadonlyMap<string, Buffer>,
  ) {}

  async read<Name extends DocumentName>(name: Name, { pod = "" }: Query = {}): Promise<Documents[Name]> {
    const path = documentPath(name, pod);
    const bytes = pod === "" || isPlainName(pod) ? this.files.get(path) : undefined;
    if (bytes === undefined) throw new AgentError("NOT_IN_REPORT", `${this.file} holds no ${path}${this.#why(path)}`);
    try {
      const document = parseDocument(name, JSON.parse(bytes.toString("utf8")));
      return { ...document, source: { from: "report", note: this.#note(document.source) } };
    } catch (error) {
      throw new AgentError("REPORT_INVALID", `${path} in ${this.file} can't be read: ${messageOf(error)}`);
    }
  }

  #note({ from, note }: Documents[DocumentName]["source"]): string {
    if (from === "agent") return this.file;
    this.unreachable = new AgentUnreachable("absent", note);
    return `${this.file}: ${from}, ${note}`;
  }

  /** What kept it out when the report was made. */
  #why(path: string): string {
    const lines = this.files.get(ERRORS)?.toString("utf8").split("\n") ?? [];
    const line = lines.find((one) => one.startsWith(`${path}: `));
    return line === undefined ? "" : ` (${line.slice(path.length + 2)})`;
  }
}

/** @throws AgentError REPORT_INVALID | FILE_TOO_LARGE | NOT_A_FILE; errors of the file system */
export async function openReport(path: string): Promise<ReportSource> {
  const archive = await readBounded(path, REPORT_MAX_BYTES);
  try {
    return new ReportSource(basename(path), unpackReport(archive));
  } catch (error) {
    throw error instanceof AgentError ? new AgentError(error.code, `${path}: ${error.message}`) : error;
  }
}
