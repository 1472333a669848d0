// SPDX-License-Identifier: Apache-2.0
import { type CredentialSource, inClusterCredentials } from "./credentials.ts";
import { kubeconfigCredentials } from "./kubeconfig.ts";

export const SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";

export interface CredentialsOptions {
  /** Path; without it the pod's service account is used. */
  readonly kubeconfig?: string | undefined;
  /** Where kubelet mounts the service account. */
  readonly serviceAccountDir?: string | undefined;
  /** KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are read from here. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
}

export function credentialsFor(options: CredentialsOptions): CredentialSource {
  if (options.kubeconfig !== undefined) return kubeconfigCredentials(options.kubeconfig);
  const { environment = process.env, serviceAccountDir = SERVICE_ACCOUNT_DIR } = options;
  return inClusterCredentials({
    host: environment.KUBERNETES_SERVICE_HOST,
    port: environment.KUBERNETES_SERVICE_PORT,
    directory: serviceAccountDir,
  });
}
