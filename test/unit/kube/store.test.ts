// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { Store, type Stored } from "../../../src/kube/store.ts";
import { LogRecorder } from "../../support/recorder.ts";

interface Thing extends Stored {
  readonly name: string;
}

function thing(name: string, uid: string, resourceVersion = "1"): Thing {
  return { name, uid, resourceVersion };
}

function create() {
  const store = new Store<Thing>((item) => item.name, new LogRecorder());
  const told: string[] = [];
  store.listen(({ kind, item, previous }) => {
    told.push(`${kind} ${item.uid}@${item.resourceVersion} was ${previous?.resourceVersion ?? "absent"}`);
  });
  return { store, told };
}

test("an upsert tells what was held before, an unchanged version tells nothing", () => {
  const { store, told } = create();
  store.upsert(thing("a", "1", "10"));
  store.upsert(thing("a", "1", "10"));
  store.upsert(thing("a", "1", "11"));
  expect(told).toEqual(["upsert 1@10 was absent", "upsert 1@11 was 10"]);
  expect(store.size).toBe(1);
});

test("a successor under the same name ends its predecessor, whose late delete is ignored", () => {
  const { store, told } = create();
  store.upsert(thing("a", "old", "10"));
  store.upsert(thing("a", "new", "12"));
  store.remove(thing("a", "old", "13"));
  expect(told).toEqual(["upsert old@10 was absent", "delete old@10 was 10", "upsert new@12 was absent"]);
  expect(store.named("a")?.uid).toBe("new");
  expect(store.get("old")).toBeUndefined();
});

test("a delete carries the last state and what was cached", () => {
  const { store, told } = create();
  store.upsert(thing("a", "1", "10"));
  store.remove(thing("a", "1", "14"));
  expect(told.at(-1)).toBe("delete 1@14 was 10");
  expect(store.named("a")).toBeUndefined();
});

test("a whole list: deletes first, then what is new or changed", () => {
  const { store, told } = create();
  store.replace([thing("a", "1"), thing("b", "2"), thing("c", "3")]);
  told.length = 0;
  store.replace([thing("d", "4", "9"), thing("b", "2"), thing("a", "5", "8"), thing("c", "3", "7")]);
  expect(told).toEqual(["delete 1@1 was 1", "upsert 4@9 was absent", "upsert 5@8 was absent", "upsert 3@7 was 1"]);
  expect([...store.values()].map((item) => item.uid).sort()).toEqual(["2", "3", "4", "5"]);
});

test("a listener can leave, also while it is called, and one function can listen twice", () => {
  const store = new Store<Thing>((item) => item.name, new LogRecorder());
  let calls = 0;
  const listener = () => {
    calls += 1;
    stopFirst();
  };
  const stopFirst = store.listen(listener);
  store.listen(listener);
  store.upsert(thing("a", "1"));
  expect(calls).toBe(2);
  store.upsert(thing("a", "1", "2"));
  expect(calls).toBe(3);
  stopFirst();
});
