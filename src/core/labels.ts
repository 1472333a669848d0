// SPDX-License-Identifier: Apache-2.0
// Syntax of Kubernetes names and labels (apimachinery/pkg/util/validation).

const NAME = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;

/** What is wrong with a label key (qualified name), or undefined. */
export function labelKeyFault(key: string): string | undefined {
  const slash = key.indexOf("/");
  const name = slash < 0 ? key : key.slice(slash + 1);
  if (slash >= 0 && !isSubdomain(key.slice(0, slash))) return "the part before '/' must be a DNS subdomain";
  if (name.length > 63) return "the name is longer than 63 characters";
  if (!NAME.test(name))
    return "it must be letters, digits, '-', '_' or '.', beginning and ending with a letter or digit";
  return undefined;
}

/** What is wrong with a label value, or undefined. */
export function labelValueFault(value: string): string | undefined {
  if (value === "") return undefined;
  if (value.length > 63) return "it is longer than 63 characters";
  if (!NAME.test(value)) {
    return "it must be empty or letters, digits, '-', '_' or '.', beginning and ending with a letter or digit";
  }
  return undefined;
}

/** DNS-1123 label: names of namespaces. */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && DNS_LABEL.test(text);
}

function isSubdomain(text: string): boolean {
  return text.length <= 253 && text.split(".").every((part) => DNS_LABEL.test(part));
}
