// SPDX-License-Identifier: Apache-2.0
// What must leave a node in no document: credentials, wherever somebody has put them. Texts may be long and of
// a stranger's making: no pattern here looks at a character more often than a bounded number of times.

export const REDACTED = "[redacted]";

const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN ([A-Z ]{0,20}PRIVATE KEY)-----[^-]*(?:-----END [A-Z ]{0,20}PRIVATE KEY-----)?/g, "[redacted $1]"],
  [/\b(bearer|basic)\s{1,8}[A-Za-z0-9+/._~=-]{8,}/gi, `$1 ${REDACTED}`],
  // A PEM text in base64, as kubeconfigs hold keys.
  [/LS0tLS1CRUdJTi[A-Za-z0-9+/=]{8,}/g, REDACTED],
  // user:password@ of a URL.
  [/:\/\/[^\s/@:]{0,128}:[^\s/@]{1,256}@/g, `://${REDACTED}@`],
  // "key": "two words", of names that say what they hold.
  [
    /(\b[\w-]{0,48}(?:password|passwd|secret|token|credential|api-?key|private-?key|key-?data)[\w-]{0,48}\\?["']?\s{0,4}[=:]\s{0,4})"(?:[^"\\\n]|\\.){1,2048}"/gi,
    `$1"${REDACTED}"`,
  ],
  // The same in a JSON text that is itself a text of one.
  [
    /(\b[\w-]{0,48}(?:password|passwd|secret|token|credential|api-?key|private-?key|key-?data)[\w-]{0,48}\\"\s{0,4}[=:]\s{0,4})\\"[^"\\\n]{1,2048}/gi,
    `$1\\"${REDACTED}`,
  ],
  // key=value and "key": "value" of names that say what they hold.
  [
    /(\b[\w-]{0,48}(?:password|passwd|secret|token|credential|api-?key|private-?key|key-?data)[\w-]{0,48}["']?\s{0,4}[=:]\s{0,4}["']?)(?![{[]["'\s{[\]}])[^\s"',;]+/gi,
    `$1${REDACTED}`,
  ],
];

const WORD = /[A-Za-z0-9_.-]{20,}/g;

/** The text without what looks like a credential. Idempotent. */
export function redact(text: string): string {
  const withoutTokens = text.replace(WORD, (word) => (hasToken(word) ? REDACTED : word));
  return SECRETS.reduce((redacted, [pattern, replacement]) => redacted.replace(pattern, replacement), withoutTokens);
}

export const SECRET_NAME = /password|passwd|secret|token|credential|api-?key|private-?key|key-?data/i;

// Sentences quote what came from outside. A quote that nothing closes goes on to the end.
const QUOTED = /"(?:[^"\\]|\\[\s\S])*(?:"|\\?$)/g;
const ANNOTATION = /\b(annotation [\w./-]{1,320}=)[^\s",;]+/g;

/** The text without credentials, and without the values that it quotes: those of wrong annotations and settings. */
export function redactStrictly(text: string): string {
  return redact(text).replace(QUOTED, `"${REDACTED}"`).replace(ANNOTATION, `$1${REDACTED}`);
}

/**
 * A JSON value with every text in it redacted; it stays JSON, which the redacted text of one may not be. With
 * `strict` also without what somebody wrote into annotations and settings, and without what sentences quote of it.
 */
export function redactValue(value: unknown, strict = false): unknown {
  if (typeof value === "string") return strict ? redactStrictly(value) : redact(value);
  if (Array.isArray(value)) return value.map((item) => redactValue(item, strict));
  if (typeof value !== "object" || value === null) return value;
  const given = "origin" in value && value.origin !== "default";
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      const secret = SECRET_NAME.test(key) || (strict && given && key === "value");
      if (secret && (typeof item === "string" || isTexts(item))) return [key, REDACTED];
      return [redact(key), strict && key === "annotations" ? hidden(item) : redactValue(item, strict)];
    }),
  );
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === "string");
}

/** Redacts a text that is a JSON document: what stands below a telling name goes, however it is written. */
export function redactJson(text: string): string {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return redact(text);
  }
  const told = new Set<string>();
  tellingTexts(document, false, told);
  const escaped = [...told].map((secret) => JSON.stringify(secret));
  return redact(escaped.reduce((shorter, secret) => shorter.replaceAll(secret, `"${REDACTED}"`), text));
}

/** Texts below a name that says what it holds. */
function tellingTexts(value: unknown, telling: boolean, told: Set<string>): void {
  if (typeof value === "string" && telling && value !== "") told.add(value);
  if (typeof value !== "object" || value === null) return;
  for (const [key, item] of Object.entries(value)) tellingTexts(item, telling || SECRET_NAME.test(key), told);
}

function hidden(record: unknown): unknown {
  if (typeof record !== "object" || record === null) return record;
  return Object.fromEntries(Object.keys(record).map((key) => [redact(key), REDACTED]));
}

/** A JSON Web Token, a service account's or istiod's: three parts, of which the first is encoded JSON. */
function hasToken(word: string): boolean {
  const parts = word.split(".");
  return parts.some((part, index) => part.startsWith("eyJ") && part.length > 10 && parts.length - index > 2);
}
