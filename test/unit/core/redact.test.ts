// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { redact, redactJson, redactValue } from "../../../src/core/report/redact.ts";

const JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl-_x";
const KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB\n-----END EC PRIVATE KEY-----";

test.each([
  [`Authorization: Bearer ${JWT}`, "Authorization: Bearer [redacted]"],
  [`token ${JWT} was refused`, "token [redacted] was refused"],
  [`a ${KEY} b`, "a [redacted EC PRIVATE KEY] b"],
  ["-----BEGIN PRIVATE KEY-----\nMHcCAQEEIB", "[redacted PRIVATE KEY]"],
  ["https://admin:hunter2@10.0.0.1/x", "https://[redacted]@10.0.0.1/x"],
  ["password=hunter2 user=me", "password=[redacted] user=me"],
  ['{"client-secret": "hunter2", "a": 1}', '{"client-secret": "[redacted]", "a": 1}'],
  ['"client-key-data": "LS0tLS1CRUdJTiBFQw=="', '"client-key-data": "[redacted]"'],
  ["key: LS0tLS1CRUdJTiBFQyBQUklWQVRF", "key: [redacted]"],
  ['"client-secret": "two \\"long\\" words", "a": "b"', '"client-secret": "[redacted]", "a": "b"'],
  ['{\\"password\\": \\"two words\\", \\"a\\": 1}', '{\\"password\\": \\"[redacted]\\", \\"a\\": 1}'],
  ["MY_TOKEN=abc,B=2", "MY_TOKEN=[redacted],B=2"],
])("%s", (text, redacted) => {
  expect(redact(text)).toBe(redacted);
  expect(redact(redacted)).toBe(redacted);
});

test.each([
  "/var/run/secrets/kubernetes.io/serviceaccount",
  "http://10.0.0.1:8080/healthz",
  "label istio.io/dataplane-mode=none",
  "basic usage",
  "eyJ.a.b",
  "",
])("%s is left", (text) => {
  expect(redact(text)).toBe(text);
});

test("a quarter of a megabyte of what almost looks like a secret takes no time to speak of", () => {
  const began = performance.now();
  for (const piece of [
    "eyJ-",
    "token-",
    "token=x ",
    'token="x',
    'token="\\',
    "eyJ",
    "-----BEGIN PRIVATE KEY-----",
    "a://b:",
    "token",
    "token=",
    "-",
    "bearer ",
  ]) {
    redact(piece.repeat(Math.ceil((1 << 18) / piece.length)));
  }
  expect(performance.now() - began).toBeLessThan(5000);
});

test("a document stays JSON, and names that say what they hold count", () => {
  const document = {
    counts: { tokens: 5, secret: true },
    annotations: { "vault/token": "hunter2", note: `password="a\\"b ${JWT}`, plain: "text" },
    settings: [
      { value: "given", origin: "env A" },
      { value: "usual", origin: "default" },
    ],
    none: null,
  };
  expect(redactValue(document)).toEqual({
    ...document,
    annotations: { "vault/token": "[redacted]", note: 'password="[redacted]"b [redacted]', plain: "text" },
  });
  const [given, usual] = document.settings;
  expect(redactValue(document, true)).toEqual({
    ...document,
    annotations: { "vault/token": "[redacted]", note: "[redacted]", plain: "[redacted]" },
    settings: [{ ...given, value: "[redacted]" }, usual],
  });
});

test("a JSON text keeps its bytes, but for what stands below a telling name, also further down", () => {
  const text = '{ "a" : 1,\n\t"auth-tokens": {"x": ["one two", "three"], "y": "a\\"b"}, "z": "three", "k": "kept" }';
  expect(redactJson(text)).toBe(
    '{ "a" : 1,\n\t"auth-tokens": {"x": ["[redacted]", "[redacted]"], "y": "[redacted]"}, "z": "[redacted]", "k": "kept" }',
  );
  expect(redactJson("token=abc, and no JSON")).toBe("token=[redacted], and no JSON");
});
