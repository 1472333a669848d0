// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { findPod, podsNamed } from "../../../src/core/report/find-pod.ts";
import { PODS, podReport } from "../../fixtures/reports.ts";

const WEB = podReport("web-7f4c");
const OTHER = podReport("web-7f4c", {
  uid: "11111111-2222-4333-8444-555555555555",
  namespace: "other",
  ips: ["10.1.2.99", "fd00::99"],
  netns: "4:4026539999",
});
const NAMELESS = podReport("x", { uid: "99999999-2222-4333-8444-555555555555", namespace: null, name: null, ips: [] });

test.each([
  ["shop/web-7f4c", WEB],
  ["other/web-7f4c", OTHER],
  ["other/we", OTHER],
  ["1111", OTHER],
  [OTHER.uid, OTHER],
  ["fd00:0::99", OTHER],
  ["10.1.2.99", OTHER],
  ["4:4026539999", OTHER],
  ["4026539999", OTHER],
  ["9999", NAMELESS],
])("%s", (reference, pod) => {
  expect(findPod([WEB, OTHER, NAMELESS], reference)).toBe(pod);
});

test("a whole name counts before longer ones that begin with it", () => {
  const short = podReport("web");
  expect(findPod([WEB, short], "web")).toBe(short);
});

test.each([
  ["web-7f4c", "POD_AMBIGUOUS", '"web-7f4c" may be other/web-7f4c, shop/web-7f4c'],
  ["we", "POD_AMBIGUOUS", '"we" may be other/web-7f4c, shop/web-7f4c'],
  ["", "POD_NOT_FOUND", 'no pod of this node is ""'],
  ["10.1.2.9", "POD_NOT_FOUND", 'no pod of this node is "10.1.2.9"'],
  ["toString", "POD_NOT_FOUND", 'no pod of this node is "toString"'],
])("%s is refused", (reference, code, message) => {
  expect(() => findPod([WEB, OTHER], reference)).toThrow(expect.objectContaining({ code, message }));
});

test("of many candidates, a few are named", () => {
  const pods = Array.from({ length: 9 }, (_, index) => podReport(`web-${index}`));
  expect(() => findPod([...pods, ...PODS.pods], "web-")).toThrow(/web-0, .*web-4 and 5 more$/);
});

test("who has not looked at addresses yet knows among whom it is decided", () => {
  const all = [WEB, OTHER, NAMELESS, podReport("web")];
  for (const reference of ["shop/web-7f4c", "web-7f4c", "we", "web", "1111", OTHER.uid, "4026539999", "9999"]) {
    const chosen = (pods: readonly (typeof WEB)[]) => {
      try {
        return findPod(pods, reference);
      } catch (error) {
        return error;
      }
    };
    const named = podsNamed(all, reference) ?? [];
    expect(named.length, reference).toBeGreaterThan(0);
    expect(chosen(named), reference).toEqual(chosen(all));
  }
  expect(podsNamed(all, "we")).toHaveLength(3);
  expect(podsNamed(all, "web")).toHaveLength(1);
  for (const reference of ["10.1.2.99", "fd00::99", "", "none"]) expect(podsNamed(all, reference)).toBeUndefined();
});
