// SPDX-License-Identifier: Apache-2.0
// The agent may do what it does, and the chart grants it nothing else.
import { describe, expect, test } from "vitest";
import { DELETION, PERMISSIONS, type Permission } from "../../../src/kube/access.ts";
import { type Manifest, RenderedChart } from "../../support/manifests.ts";

const OPENSHIFT = "security.openshift.io";

/** `get apps/daemonsets istio-cni-node`: one line for each thing that is granted. */
function granted(chart: RenderedChart): string[] {
  return (chart.only("ClusterRole").rules ?? [])
    .filter(({ apiGroups }) => !apiGroups?.includes(OPENSHIFT))
    .flatMap(({ verbs, apiGroups = [], resources = [], resourceNames = [""] }) =>
      verbs.flatMap((verb) =>
        apiGroups.flatMap((group) =>
          resources.flatMap((resource) => resourceNames.map((name) => line(verb, group, resource, name))),
        ),
      ),
    )
    .sort();
}

function line(verb: string, group: string, resource: string, name = ""): string {
  return `${verb} ${group}/${resource} ${name}`.trim();
}

const lines = (permissions: readonly Permission[]) =>
  permissions.flatMap(({ verbs, group, resource, name }) => verbs.map((verb) => line(verb, group, resource, name)));
const needed = lines(PERMISSIONS).sort();

describe.each(["default", "everything", "platform-openshift", "ambient-off", "repair-and-delete-pods"])(
  "%s",
  (name) => {
    const chart = new RenderedChart(name);

    test("grants what the agent asks for", () => {
      expect(granted(chart)).toEqual(needed);
    });

    test("to the account that the pod has, and to nobody else", () => {
      const subject = { kind: "ServiceAccount", name: "istio-cni", namespace: "istio-system" };
      const bindings = chart.objects.filter(({ kind }) => /Binding$/.test(kind)) as (Manifest & object)[];
      const roleRef = {
        apiGroup: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        name: chart.only("ClusterRole").metadata?.name,
      };
      expect(bindings).toMatchObject([{ roleRef, subjects: [subject] }]);
      expect(bindings).toHaveProperty("[0].subjects.length", 1);
      expect(chart.only("DaemonSet").spec?.template.spec?.serviceAccountName).toBe(subject.name);
    });
  },
);

test("pods may be deleted where that is the repair, and nowhere else", () => {
  expect(granted(new RenderedChart("delete-pods"))).toEqual(lines([...PERMISSIONS, DELETION]).sort());
});

test("it outlives `helm uninstall`: an agent that is told to end asks whether its DaemonSet is gone", () => {
  const kept = new RenderedChart("default").objects.filter(
    ({ metadata }) => metadata.annotations?.["helm.sh/resource-policy"] === "keep",
  );
  // No others: a kept object that istio-cni's chart has not would be in the way of a rollback.
  expect(kept.map(({ kind, metadata }) => `${kind} ${metadata.name}`).sort()).toEqual([
    "ClusterRole istio-cni",
    "ClusterRoleBinding istio-cni",
    "ServiceAccount istio-cni",
  ]);
});

test("istio-cni's chart grants all of it: the image works under either", () => {
  const upstream = [
    ...["pods", "nodes", "namespaces"].flatMap((resource) =>
      ["get", "list", "watch"].map((verb) => line(verb, "", resource)),
    ),
    ...["patch", "update"].map((verb) => line(verb, "", "pods/status")),
    ...["create", "patch"].map((verb) => line(verb, "", "events")),
    line("get", "apps", "daemonsets", "istio-cni-node"),
  ];
  expect(upstream).toEqual(expect.arrayContaining(needed));
});
