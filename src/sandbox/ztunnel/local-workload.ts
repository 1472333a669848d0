// SPDX-License-Identifier: Apache-2.0
import type { CertificateAuthority, Credentials } from "../identity/authority.ts";
import type { LocalName } from "./directory.ts";
import type { MeshWorkload } from "./mesh.ts";
import type { MeshFile } from "./mesh-file.ts";

/** The workload a proxy works for: its entry in the mesh, and its certificate. */
export class LocalWorkload {
  private credentials: Credentials | undefined;

  constructor(
    readonly name: LocalName,
    readonly meshFile: MeshFile,
    private readonly authority: CertificateAuthority,
  ) {}

  get rootCertificate(): string {
    return this.authority.rootCertificate;
  }

  /** Waits up to 5 s for the mesh to know the workload. @throws Error with ztunnel's words when it does not. */
  async get(): Promise<MeshWorkload> {
    const found = await this.meshFile.find((directory) => directory.local(this.name));
    if (found !== undefined) return found;
    const { name, namespace, serviceAccount } = this.name;
    throw new Error(`failed to fetch information about local workload: ${serviceAccount}.${namespace} (${name})`);
  }

  /** A certificate for `workload`'s identity that is not past half of its life. */
  certificate(workload: MeshWorkload): Credentials {
    const { trustDomain, namespace, serviceAccount } = workload;
    if (this.credentials === undefined || this.credentials.renewAt < Date.now()) {
      this.credentials = this.authority.issue({ trustDomain, namespace, serviceAccount });
    }
    return this.credentials;
  }
}
