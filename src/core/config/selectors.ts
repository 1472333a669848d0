// SPDX-License-Identifier: Apache-2.0
// AMBIENT_ENABLEMENT_SELECTOR: a YAML list of {podSelector, namespaceSelector}, each a
// metav1.LabelSelector, checked as Kubernetes checks one (LabelSelectorAsSelector). Stricter than
// upstream in one thing: an unknown field is an error, because there a misspelt `matchLabels` is an
// empty selector, and that matches every pod of the cluster.
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument } from "yaml";
import { DATAPLANE_MODE_LABEL } from "../constants.ts";
import { labelKeyFault, labelValueFault } from "../labels.ts";
import type { EnablementSelector, LabelSelector, SelectorOperator, SelectorRequirement } from "../selector.ts";

const MAX_BYTES = 64 * 1024;
const MAX_ITEMS = 1000;
const OPERATORS: readonly SelectorOperator[] = ["In", "NotIn", "Exists", "DoesNotExist"];

/** The chart's two selectors, for charts up to 1.26 that do not set the variable. */
export const DEFAULT_ENABLEMENT_SELECTOR = `- podSelector:
    matchLabels:
      ${DATAPLANE_MODE_LABEL}: ambient
- podSelector:
    matchExpressions:
      - key: ${DATAPLANE_MODE_LABEL}
        operator: NotIn
        values: ["none"]
  namespaceSelector:
    matchLabels:
      ${DATAPLANE_MODE_LABEL}: ambient
`;

const MATCHES_ALL: LabelSelector = { requirements: [] };
const IS_AMBIENT: LabelSelector = {
  requirements: [{ key: DATAPLANE_MODE_LABEL, operator: "In", values: ["ambient"] }],
};
/** What that text says. */
const DEFAULT_SELECTORS: readonly EnablementSelector[] = [
  { podSelector: IS_AMBIENT, namespaceSelector: MATCHES_ALL },
  {
    podSelector: { requirements: [{ key: DATAPLANE_MODE_LABEL, operator: "NotIn", values: ["none"] }] },
    namespaceSelector: IS_AMBIENT,
  },
];

/**
 * Enablement selectors of their YAML text. Empty text or an empty document is the empty list: it matches nothing.
 * @throws Error that names line, column and field
 */
export function parseEnablementSelectors(text: string): readonly EnablementSelector[] {
  // Most nodes have it, and every command reads its settings: not worth a parser's first run.
  if (text === DEFAULT_ENABLEMENT_SELECTOR) return DEFAULT_SELECTORS;
  if (Buffer.byteLength(text) > MAX_BYTES) throw new Error(`larger than ${MAX_BYTES} bytes`);
  return new SelectorReader(text).read();
}

type Fields = ReadonlyMap<string, Node | null>;

class SelectorReader {
  readonly #lines = new LineCounter();
  readonly #document;
  #items = 0;

  constructor(text: string) {
    // YAML 1.1, as sigs.k8s.io/yaml: an unquoted `on` is a boolean there.
    this.#document = parseDocument(text, { lineCounter: this.#lines, version: "1.1", prettyErrors: false });
  }

  read(): readonly EnablementSelector[] {
    const [error] = this.#document.errors;
    if (error !== undefined) {
      const { line, col } = this.#lines.linePos(error.pos[0]);
      throw new Error(`line ${line}, column ${col}: ${error.message}`);
    }
    return this.#list(this.#document.contents, "the document").map((node, index) => {
      const path = `[${index}]`;
      const fields = this.#fields(node, path, ["podSelector", "namespaceSelector"]);
      return {
        podSelector: this.#selector(fields.get("podSelector"), `${path}.podSelector`),
        namespaceSelector: this.#selector(fields.get("namespaceSelector"), `${path}.namespaceSelector`),
      };
    });
  }

  #selector(node: Node | null | undefined, path: string): LabelSelector {
    const fields = this.#fields(node, path, ["matchLabels", "matchExpressions"]);
    const labels = this.#fields(fields.get("matchLabels"), `${path}.matchLabels`);
    const requirements: SelectorRequirement[] = [];
    for (const [key, value] of labels) {
      this.#checkKey(key, fields.get("matchLabels"), `${path}.matchLabels`);
      const label = this.#value(value, `${path}.matchLabels[${key}]`, fields.get("matchLabels"));
      requirements.push({ key, operator: "In", values: [label] });
    }
    this.#list(fields.get("matchExpressions"), `${path}.matchExpressions`).forEach((item, index) => {
      requirements.push(this.#requirement(item, `${path}.matchExpressions[${index}]`));
    });
    return { requirements };
  }

  #requirement(node: Node | null, path: string): SelectorRequirement {
    const fields = this.#fields(node, path, ["key", "operator", "values"]);
    const key = this.#text(fields.get("key"), `${path}.key`, node);
    this.#checkKey(key, fields.get("key"), `${path}.key`);
    const operatorText = this.#text(fields.get("operator"), `${path}.operator`, node);
    const operator = OPERATORS.find((known) => known === operatorText);
    if (operator === undefined) {
      throw this.#fault(
        fields.get("operator"),
        `${path}.operator`,
        `${JSON.stringify(operatorText)} is none of ${OPERATORS.join(", ")}`,
      );
    }
    const valueNodes = this.#list(fields.get("values"), `${path}.values`);
    const values = valueNodes.map((item, index) => this.#value(item, `${path}.values[${index}]`, node));
    const needsValues = operator === "In" || operator === "NotIn";
    if (needsValues && values.length === 0)
      throw this.#fault(node, `${path}.values`, `must not be empty with ${operator}`);
    if (!needsValues && values.length > 0) throw this.#fault(node, `${path}.values`, `must be empty with ${operator}`);
    return { key, operator, values };
  }

  #checkKey(key: string, node: Node | null | undefined, path: string): void {
    const fault = labelKeyFault(key);
    if (fault !== undefined) throw this.#fault(node, path, `${JSON.stringify(key)} is no label key: ${fault}`);
  }

  #value(node: Node | null | undefined, path: string, parent: Node | null | undefined): string {
    const text = this.#scalar(node, path, parent);
    const fault = labelValueFault(text);
    if (fault !== undefined)
      throw this.#fault(node ?? parent, path, `${JSON.stringify(text)} is no label value: ${fault}`);
    return text;
  }

  #text(node: Node | null | undefined, path: string, parent: Node | null | undefined): string {
    const text = this.#scalar(node, path, parent);
    if (text === "") throw this.#fault(node ?? parent, path, "missing");
    return text;
  }

  /** Text of a scalar; booleans and numbers as text, as sigs.k8s.io/yaml gives them to a string field. */
  #scalar(unresolved: Node | null | undefined, path: string, parent: Node | null | undefined): string {
    const node = this.#resolve(unresolved);
    if (node === undefined) return "";
    if (!isScalar(node)) throw this.#fault(node ?? parent, path, "must be text");
    if (typeof node.value === "boolean") return String(node.value);
    if (typeof node.value === "string") return node.value;
    return node.value === null ? "" : (node.source ?? String(node.value));
  }

  #list(unresolved: Node | null | undefined, path: string): (Node | null)[] {
    const node = this.#resolve(unresolved);
    if (node === undefined) return [];
    if (!isSeq(node)) throw this.#fault(node, path, "must be a list");
    this.#count(node.items.length, node, path);
    return node.items as (Node | null)[];
  }

  #fields(unresolved: Node | null | undefined, path: string, known?: readonly string[]): Fields {
    const node = this.#resolve(unresolved);
    const fields = new Map<string, Node | null>();
    if (node === undefined) return fields;
    if (!isMap(node)) throw this.#fault(node, path, "must be a mapping");
    this.#count(node.items.length, node, path);
    for (const { key, value } of node.items as Pair<Node, Node | null>[]) {
      const name = this.#scalar(key, path, node);
      if (known !== undefined && !known.includes(name)) {
        throw this.#fault(key, path, `unknown field ${JSON.stringify(name)}, known are ${known.join(", ")}`);
      }
      fields.set(name, value);
    }
    return fields;
  }

  /** Follows an alias; undefined for a missing or null node. */
  #resolve(node: Node | null | undefined): Node | undefined {
    const target = isAlias(node) ? node.resolve(this.#document) : node;
    if (isAlias(node) && target === undefined) throw this.#fault(node, "the document", `unknown alias *${node.source}`);
    if (target === null || target === undefined || (isScalar(target) && target.value === null)) return undefined;
    return target;
  }

  #count(items: number, node: Node, path: string): void {
    this.#items += items;
    if (this.#items > MAX_ITEMS) throw this.#fault(node, path, `more than ${MAX_ITEMS} items in all`);
  }

  #fault(node: Node | null | undefined, path: string, what: string): Error {
    const { line, col } = this.#lines.linePos(node?.range?.[0] ?? 0);
    return new Error(`line ${line}, column ${col}: ${path}: ${what}`);
  }
}
