// SPDX-License-Identifier: Apache-2.0
// What must leave a node in no document: credentials, wherever somebody has put them. Texts may be long and of
// a stranger's making: no pattern here looks at a character more often than a bounded number of times.

const REDACTED = "[redacted]";

const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN ([A-Z ]{0,20}PRIVATE KEY)-----[^-]*(?:-----END [A-Z ]{0,20}PRIVATE KEY-----)?/g, "[redacted $1]"],
  [/\b(bearer|basic)\s{1,8}[A-Za-z0-9+/._~=-]{8,}/gi, `$1 ${REDACTED}`],
  // A PEM text in base64, as kubeconfigs hold keys.
  [/LS0tLS1CRUdJTi[A-Za-z0-9+/=]{8,}/g, REDACTED],
  // user:password@ of a URL.
  [/:\/\/[^\s/@:]{0,128}:[^\s/@]{1,256}@/g, `://${REDACTED}@`],
  // key=value and "key": "value" of names that say what they hold.
  [
    /(\b[\w-]{0,48}(?:password|passwd|secret|token|credential|api-?key|private-?key|key-?data)[\w-]{0,48}["']?\s{0,4}[=:]\s{0,4}["']?)[^\s"',;]+/gi,
    `$1${REDACTED}`,
  ],
];

const WORD = /[A-Za-z0-9_.-]{20,}/g;

/** The text without what looks like a credential. Idempotent. */
export function redact(text: string): string {
  const withoutTokens = text.replace(WORD, (word) => (hasToken(word) ? REDACTED : word));
  return SECRETS.reduce((redacted, [pattern, replacement]) => redacted.replace(pattern, replacement), withoutTokens);
}

const SECRET_NAME = /password|passwd|secret|token|credential|api-?key|private-?key|key-?data/i;

/**
 * A JSON value with every text in it redacted; it stays JSON, which the redacted text of one may not be. With
 * `strict` also without what somebody wrote into annotations and settings.
 */
export function redactValue(value: unknown, strict = false): unknown {
  if (typeof value === "string") return redact(value);
  if (Array.isArray(value)) return value.map((item) => redactValue(item, strict));
  if (typeof value !== "object" || value === null) return value;
  const given = "origin" in value && value.origin !== "default";
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      const secret = SECRET_NAME.test(key) || (strict && given && key === "value");
      if (typeof item === "string" && secret) return [key, REDACTED];
      return [redact(key), strict && key === "annotations" ? hidden(item) : redactValue(item, strict)];
    }),
  );
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
