import { assert, assertEquals } from "@std/assert";
import { type Member, MemberList } from "../../internal/memory/member_list.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

/** Steps that add a new member, or delete one of the members by its number. */
const anySteps = fc.array(fc.oneof(fc.constant("add" as const), fc.nat(1000)), { maxLength: 60 });

function fill(steps: readonly ("add" | number)[]): { list: MemberList<Member>; model: Set<Member> } {
  const list = new MemberList<Member>();
  const model = new Set<Member>();
  for (const step of steps) {
    const chosen = step === "add" ? undefined : [...model][step % model.size];
    if (chosen === undefined) {
      const added = { place: NaN };
      list.add(added);
      model.add(added);
    } else {
      list.delete(chosen);
      model.delete(chosen);
    }
  }
  return { list, model };
}

test("MemberList holds each member that was added and not deleted, once", async () => {
  await check([anySteps], (steps) => {
    const { list, model } = fill(steps);
    const visited = [...list];
    assertEquals([list.size, visited.length, new Set(visited)], [model.size, model.size, model]);
  });
});

test("MemberList iterates over every member that stays, though others are deleted meanwhile", async () => {
  await check([anySteps, fc.array(fc.array(fc.nat(1000), { maxLength: 3 }))], (steps, deletions) => {
    const { list, model } = fill(steps);
    const visited = new Set<Member>();
    let at = 0;
    for (const member of list) {
      assert(model.has(member));
      visited.add(member);
      for (const number of deletions[at++] ?? []) {
        const deleted = [...model][number % model.size];
        if (deleted === undefined) continue;
        list.delete(deleted);
        model.delete(deleted);
      }
    }
    assertEquals(model.difference(visited), new Set());
  });
});
