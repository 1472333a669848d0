// SPDX-License-Identifier: Apache-2.0
// Whether an object is what the Kubernetes API takes, without a server: kubernetes-models has the schemas'
// types and required fields, client-node the names of all fields, of which the schemas allow further ones.
import * as client from "@kubernetes/client-node";
import * as apps from "kubernetes-models/apps/v1";
import * as networking from "kubernetes-models/networking.k8s.io/v1";
import * as rbac from "kubernetes-models/rbac.authorization.k8s.io/v1";
import * as core from "kubernetes-models/v1";
import type { Manifest } from "./manifests.ts";

interface Attribute {
  readonly baseName: string;
  readonly type: string;
}

interface Model {
  getAttributeTypeMap(): readonly Attribute[];
}

type Validator = new (data: never) => { validate(): void };

const GROUPS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  v1: core,
  "apps/v1": apps,
  "networking.k8s.io/v1": networking,
  "rbac.authorization.k8s.io/v1": rbac,
};

/** A sentence for each thing that the API server would refuse or silently drop. */
export function kubeProblems(object: Manifest): string[] {
  const { apiVersion, kind } = object;
  const validator = GROUPS[apiVersion]?.[kind];
  if (validator === undefined) return [`${apiVersion} ${kind} is not known here`];
  const problems = unknownFields(`V1${kind}`, object, "");
  try {
    new (validator as Validator)(object as never).validate();
  } catch (error) {
    problems.push(String(error));
  }
  return problems;
}

function modelOf(type: string): Model | undefined {
  const model = (client as unknown as Record<string, unknown>)[type];
  return typeof model === "function" && "getAttributeTypeMap" in model ? (model as unknown as Model) : undefined;
}

function unknownFields(type: string, value: unknown, path: string): string[] {
  const item = /^Array<(.*)>$/.exec(type)?.[1];
  if (item !== undefined) {
    return Array.isArray(value) ? value.flatMap((one, at) => unknownFields(item, one, `${path}[${at}]`)) : [];
  }
  const model = modelOf(type);
  if (model === undefined || typeof value !== "object" || value === null) return [];
  const attributes = new Map(model.getAttributeTypeMap().map((one) => [one.baseName, one.type]));
  return Object.entries(value).flatMap(([name, field]) => {
    const known = attributes.get(name);
    return known === undefined
      ? [`${path}.${name} is no field of ${type}`]
      : unknownFields(known, field, `${path}.${name}`);
  });
}
