// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { misplacement, type NodeRequirement, type Placement } from "../../../src/core/placement.ts";

const node = { name: "node1", labels: { zone: "a", cores: "8", "kubernetes.io/os": "linux", empty: "" } };
const anywhere: Placement = { nodeName: undefined, nodeSelector: {}, required: undefined };

const need = (key: string, operator: NodeRequirement["operator"], ...values: string[]): NodeRequirement => ({
  key,
  operator,
  values,
});
const where = (...expressions: NodeRequirement[]): Placement => ({
  ...anywhere,
  required: [{ expressions, fields: [] }],
});

test.each<[string, Placement]>([
  ["nothing is asked for", anywhere],
  ["nodeName is this node's", { ...anywhere, nodeName: "node1" }],
  ["every label of nodeSelector is there", { ...anywhere, nodeSelector: { zone: "a", empty: "" } }],
  ["In", where(need("zone", "In", "b", "a"))],
  ["NotIn of another value", where(need("zone", "NotIn", "b"))],
  ["NotIn of a label that is not there", where(need("rack", "NotIn", "b"))],
  ["Exists, also when empty", where(need("empty", "Exists"))],
  ["DoesNotExist", where(need("rack", "DoesNotExist"))],
  ["Gt", where(need("cores", "Gt", "7"))],
  ["Lt", where(need("cores", "Lt", "16"))],
  [
    "one of several terms",
    {
      ...anywhere,
      required: [
        ...(where(need("zone", "In", "b")).required ?? []),
        { expressions: [need("zone", "In", "a")], fields: [] },
      ],
    },
  ],
  [
    "the node's name as a field",
    { ...anywhere, required: [{ expressions: [], fields: [need("metadata.name", "In", "node1")] }] },
  ],
])("matches: %s", (_why, placement) => {
  expect(misplacement(placement, node)).toBeUndefined();
});

test.each<[string, Placement, string]>([
  ["another node", { ...anywhere, nodeName: "node2" }, "nodeName is node2"],
  ["a label is missing", { ...anywhere, nodeSelector: { rack: "1" } }, "nodeSelector asks for rack=1"],
  ["a label has another value", { ...anywhere, nodeSelector: { zone: "a", cores: "4" } }, "cores=4"],
  ["a label by the name of a member of Object", { ...anywhere, nodeSelector: { constructor: "x" } }, "constructor=x"],
  ["NotIn", where(need("zone", "NotIn", "a")), "nodeAffinity"],
  ["Exists", where(need("rack", "Exists")), "nodeAffinity"],
  ["DoesNotExist", where(need("empty", "DoesNotExist")), "nodeAffinity"],
  ["one of two expressions", where(need("zone", "In", "a"), need("cores", "Gt", "8")), "nodeAffinity"],
  ["Lt of the same", where(need("cores", "Lt", "8")), "nodeAffinity"],
  ["Gt of a label that is no number", where(need("zone", "Gt", "0")), "nodeAffinity"],
  ["Gt of no number", where(need("cores", "Gt", "many")), "nodeAffinity"],
  ["Gt of several", where(need("cores", "Gt", "1", "2")), "nodeAffinity"],
  [
    "a field of another node",
    { ...anywhere, required: [{ expressions: [], fields: [need("metadata.name", "In", "x")] }] },
    "nodeAffinity",
  ],
  ["an empty term", { ...anywhere, required: [{ expressions: [], fields: [] }] }, "nodeAffinity"],
  ["no term", { ...anywhere, required: [] }, "nodeAffinity"],
])("does not match: %s", (_why, placement, sentence) => {
  expect(misplacement(placement, node)).toContain(sentence);
});
