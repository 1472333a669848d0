// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";
import { SECRET_NAME } from "../../core/report/redact.ts";
import type { CliEnv } from "../env.ts";

const SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/** Shorter ones are words: leaving them out everywhere would tear holes. */
const SHORTEST = 8;
const LONGEST = 16_384;

/** Credentials that this process can name: those of its environment, and the service account's token. */
export function knownSecrets(environment: CliEnv["environment"]): readonly string[] {
  const named = Object.entries(environment).flatMap(([name, value]) => (SECRET_NAME.test(name) ? [value ?? ""] : []));
  return (
    [...named, tokenIn(SERVICE_ACCOUNT_TOKEN)]
      .map((secret) => secret.trim())
      // A path to a credential is none.
      .filter((secret) => secret.length >= SHORTEST && secret.length <= LONGEST && !/^\/[\w./-]+$/.test(secret))
  );
}

function tokenIn(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
