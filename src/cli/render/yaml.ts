// SPDX-License-Identifier: Apache-2.0
// A file of its own, so that the package is loaded for who asks for YAML, and by its name: of a CommonJS
// package, a bundle's import() has no names.
import { stringify } from "yaml";

export function yamlText(document: unknown): string {
  return stringify(document);
}
