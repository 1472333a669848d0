// SPDX-License-Identifier: Apache-2.0
import { isMap, isScalar, LineCounter, parseDocument } from "yaml";
import { messageOf } from "../../core/errors.ts";

export type Path = readonly (string | number)[];

/** Values of a YAML file that remember their lines. */
export class Located {
  private constructor(
    private readonly file: string,
    private readonly lines: LineCounter,
    private readonly document: ReturnType<typeof parseDocument>,
    readonly value: unknown,
  ) {}

  /** @throws Error naming file and line of what is no YAML */
  static parse(file: string, text: string): Located {
    const lines = new LineCounter();
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
    const [error] = document.errors;
    if (error !== undefined) {
      throw new Error(`${file}:${lines.linePos(error.pos[0]).line}: ${error.message}`);
    }
    try {
      return new Located(file, lines, document, document.toJS({ maxAliasCount: 50 }));
    } catch (error) {
      throw new Error(`${file}: ${messageOf(error)}`);
    }
  }

  /** `file:line: path: message`. A value that is missing has its parent's line. */
  problem(path: Path, message: string): string {
    return `${this.file}:${this.line(path)}: ${path.length === 0 ? "" : `${dotted(path)}: `}${message}`;
  }

  private line(path: Path): number {
    for (let length = path.length; length > 0; length--) {
      const offset = this.offset(path.slice(0, length));
      if (offset !== undefined) return this.lines.linePos(offset).line;
    }
    return 1;
  }

  /** Of the key, where the value is an entry of a map. */
  private offset(path: Path): number | undefined {
    const parent = path.length === 1 ? this.document.contents : this.document.getIn(path.slice(0, -1), true);
    const last = path.at(-1);
    if (isMap(parent)) {
      const key = parent.items
        .map((item) => item.key)
        .find((each) => isScalar(each) && String(each.value) === String(last));
      if (isScalar(key)) return key.range?.[0];
      return undefined;
    }
    const node: unknown = this.document.getIn(path, true);
    return isRanged(node) ? node.range[0] : undefined;
  }
}

/** `steps[3].connect` */
function dotted(path: Path): string {
  return path.map((part, index) => (typeof part === "number" ? `[${part}]` : index === 0 ? part : `.${part}`)).join("");
}

function isRanged(node: unknown): node is { readonly range: readonly [number, number, number] } {
  return typeof node === "object" && node !== null && "range" in node && Array.isArray(node.range);
}
