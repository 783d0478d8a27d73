import { assert, assertEquals } from "@std/assert";
import { type Member, Roster } from "../../internal/memory/roster.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

/** What is done to a roster: somebody comes, or one of those who are there goes. */
const anySteps = fc.array(fc.oneof(fc.constant("come" as const), fc.nat(1000)), { maxLength: 60 });

function fill(steps: readonly ("come" | number)[]): { roster: Roster<Member>; model: Set<Member> } {
  const roster = new Roster<Member>();
  const model = new Set<Member>();
  for (const step of steps) {
    const someone = step === "come" ? undefined : [...model][step % model.size];
    if (someone === undefined) {
      const comer = { place: NaN };
      roster.add(comer);
      model.add(comer);
    } else {
      roster.delete(someone);
      model.delete(someone);
    }
  }
  return { roster, model };
}

test("A roster holds those who came and did not go, each once", async () => {
  await check([anySteps], (steps) => {
    const { roster, model } = fill(steps);
    const met = [...roster];
    assertEquals([roster.size, met.length, new Set(met)], [model.size, model.size, model]);
  });
});

test("Members that go while a roster is walked through hide nobody who stays", async () => {
  await check([anySteps, fc.array(fc.array(fc.nat(1000), { maxLength: 3 }))], (steps, goers) => {
    const { roster, model } = fill(steps);
    const met = new Set<Member>();
    let at = 0;
    for (const member of roster) {
      assert(model.has(member));
      met.add(member);
      for (const goer of goers[at++] ?? []) {
        const gone = [...model][goer % model.size];
        if (gone === undefined) continue;
        roster.delete(gone);
        model.delete(gone);
      }
    }
    assertEquals(model.difference(met), new Set());
  });
});
