import { assertEquals } from "@std/assert";
import { ClearingMap } from "../../internal/memory/clearing_map.ts";
import { test } from "../kit/bounded.ts";
import { memoryAfter } from "../kit/figures/memory.ts";
import { check, fc } from "../kit/property.ts";

/** Steps that set a key to a new value, or delete it. */
const anySteps = fc.array(fc.record({ key: fc.nat(9), sets: fc.boolean() }), { maxLength: 60 });

test("ClearingMap holds what a Map holds, in the same order", async () => {
  await check([anySteps], (steps) => {
    const map = new ClearingMap<number, number>();
    const model = new Map<number, number>();
    for (const [value, { key, sets }] of steps.entries()) {
      if (sets) map.set(key, value), model.set(key, value);
      else assertEquals(map.delete(key), model.delete(key));
      assertEquals([map.size, map.get(key)], [model.size, model.get(key)]);
    }
    assertEquals([[...map.entries()], [...map.values()]], [[...model], [...model.values()]]);
  });
});

test("a value that was removed from a ClearingMap does not outlive a young collection, also after an old table has", async () => {
  await memoryAfter(`
    import { ClearingMap } from "${import.meta.resolve("../../internal/memory/clearing_map.ts")}";
    const OPEN = 50;
    const map = new ClearingMap();
    let last = 0;
    const pass = (count) => Array.from({ length: count }, () => {
      const value = { id: ++last };
      map.set(last, value);
      map.delete(last - OPEN);
      return new WeakRef(value);
    });
    // A reference keeps its object until the current task is done.
    const nextTask = () => new Promise((resolve) => setTimeout(resolve));
    pass(1000);
    await nextTask();
    gc(), gc();
    const passed = pass(1000);
    await nextTask();
    gc({ type: "minor" }), gc({ type: "minor" });
    await nextTask();
    const left = passed.filter((value) => value.deref() !== undefined).length;
    if (left !== OPEN) throw new Error(left + " values are left of " + OPEN + " in the map");
  `);
});
