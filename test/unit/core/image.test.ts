// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { repositoryOf } from "../../../src/core/image.ts";

test.each([
  ["istio/install-cni:1.30.0", "docker.io/istio/install-cni"],
  ["docker.io/istio/install-cni@sha256:0123", "docker.io/istio/install-cni"],
  ["index.docker.io/istio/install-cni:1", "docker.io/istio/install-cni"],
  ["install-cni", "docker.io/library/install-cni"],
  ["install-cni:latest", "docker.io/library/install-cni"],
  ["gcr.io/istio-release/install-cni:1.30.0-distroless@sha256:0123", "gcr.io/istio-release/install-cni"],
  ["localhost/agent", "localhost/agent"],
  ["localhost:5000/agent", "localhost:5000/agent"],
  ["registry.example:5000/a/b/c:v1", "registry.example:5000/a/b/c"],
  ["[fd00::1]:5000/agent:v1", "[fd00::1]:5000/agent"],
  [" quay.io/a/b:1 ", "quay.io/a/b"],
])("%s is of %s", (reference, repository) => {
  expect(repositoryOf(reference)).toBe(repository);
});

test.each(["", " ", ":tag", "@sha256:0123"])("%j has no repository", (reference) => {
  expect(repositoryOf(reference)).toBeUndefined();
});
