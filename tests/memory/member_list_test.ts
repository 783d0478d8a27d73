import { assert, assertEquals } from "@std/assert";
import { type Member, MemberList } from "../../internal/memory/member_list.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

/** What is done to a list: somebody comes, or one of those who are there goes. */
const anySteps = fc.array(fc.oneof(fc.constant("come" as const), fc.nat(1000)), { maxLength: 60 });

function fill(steps: readonly ("come" | number)[]): { list: MemberList<Member>; model: Set<Member> } {
  const list = new MemberList<Member>();
  const model = new Set<Member>();
  for (const step of steps) {
    const someone = step === "come" ? undefined : [...model][step % model.size];
    if (someone === undefined) {
      const comer = { place: NaN };
      list.add(comer);
      model.add(comer);
    } else {
      list.delete(someone);
      model.delete(someone);
    }
  }
  return { list, model };
}

test("A list holds those who came and did not go, each once", async () => {
  await check([anySteps], (steps) => {
    const { list, model } = fill(steps);
    const met = [...list];
    assertEquals([list.size, met.length, new Set(met)], [model.size, model.size, model]);
  });
});

test("Members that go while a list is walked through hide nobody who stays", async () => {
  await check([anySteps, fc.array(fc.array(fc.nat(1000), { maxLength: 3 }))], (steps, goers) => {
    const { list, model } = fill(steps);
    const met = new Set<Member>();
    let at = 0;
    for (const member of list) {
      assert(model.has(member));
      met.add(member);
      for (const goer of goers[at++] ?? []) {
        const gone = [...model][goer % model.size];
        if (gone === undefined) continue;
        list.delete(gone);
        model.delete(gone);
      }
    }
    assertEquals(model.difference(met), new Set());
  });
});
