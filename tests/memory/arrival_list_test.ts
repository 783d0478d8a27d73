import { assertEquals, assertStrictEquals } from "@std/assert";
import { type Arrival, ArrivalList } from "../../internal/memory/arrival_list.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

interface Guest extends Arrival<Guest> {
  readonly number: number;
}

test("ArrivalList keeps the order of arrival, and what was deleted keeps no member alive", async () => {
  // Steps that add a new member, or delete one of the members by its number.
  const anySteps = fc.array(fc.oneof(fc.constant("add" as const), fc.nat(1000)), { maxLength: 60 });
  await check([anySteps], (steps) => {
    const list = new ArrivalList<Guest>();
    const model: Guest[] = [];
    steps.forEach((step, number) => {
      if (step === "add" || model.length === 0) {
        const added: Guest = { number, before: undefined, behind: undefined };
        list.add(added);
        model.push(added);
      } else {
        const [deleted] = model.splice(step % model.length, 1);
        list.delete(deleted);
        assertEquals([deleted.before, deleted.behind], [undefined, undefined]);
      }
      assertStrictEquals(list.first, model[0]);
      assertEquals(list.all().map((guest) => guest.number), model.map((guest) => guest.number));
      assertEquals(list.size, model.length);
    });
  });
});
