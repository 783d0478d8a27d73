import { assertEquals, assertLessOrEqual } from "@std/assert";
import { Account, Budget, type Holder } from "../../internal/memory/budget.ts";
import { test } from "../kit/bounded.ts";
import { check, fc } from "../kit/property.ts";

/** The holder of one line, finished or not; counts how often any holder is looked at. */
class Line implements Holder {
  static looks = 0;
  gone = false;
  bytes = 0;
  readonly #account: Account;
  readonly #midLine: boolean;

  constructor(budget: Budget, midLine = true) {
    this.#account = new Account(budget, this);
    this.#midLine = midLine;
  }

  get holdsInput(): boolean {
    Line.looks++;
    return this.#midLine;
  }

  hold(bytes: number): void {
    this.bytes = bytes;
    this.#account.holdInput(bytes);
  }

  giveWay(): void {
    this.gone = true;
    this.#account.holdInput(0);
  }
}

test("Budget ends the connection with the largest unfinished line, and none whose line is finished", async () => {
  const sizes = fc.array(fc.tuple(fc.constantFrom(1, 4, 16, 64), fc.boolean()), { minLength: 1, maxLength: 30 });
  await check([sizes], (sizes) => {
    const budget = new Budget(100);
    const lines: Line[] = [];
    for (const [bytes, midLine] of sizes) {
      const line = new Line(budget, midLine);
      lines.push(line);
      const before = lines.filter(({ gone }) => !gone);
      line.hold(bytes);
      const taken = () => lines.reduce((sum, { gone, bytes }) => sum + (gone ? 0 : bytes), 0);
      const went = before.filter(({ gone }) => gone);
      const left = lines.filter((line) => !line.gone && line.holdsInput);
      assertEquals(went.every((line) => line.holdsInput), true);
      for (const { bytes } of went) for (const { bytes: other } of left) assertLessOrEqual(other, bytes);
      if (left.length > 0) assertLessOrEqual(taken(), 100);
      assertEquals(budget.tight, taken() > 50);
    }
  });
});

test("Budget ends a connection that holds 4 GiB or more, and not one that holds little", () => {
  for (const bytes of [2 ** 32, 2 ** 32 + 1, 5 * 2 ** 30]) {
    const budget = new Budget(bytes);
    const [little, much] = [new Line(budget), new Line(budget)];
    little.hold(2 ** 20);
    much.hold(bytes);
    assertEquals([little.gone, much.gone], [false, true]);
  }
});

test("Budget looks at no more connections than it has to end, however many there are", () => {
  const budget = new Budget(1000 * 64);
  const lines = Array.from({ length: 9000 }, () => new Line(budget));
  for (const [i, line] of lines.entries()) line.hold(i < 8000 ? 1 : 16);
  Line.looks = 0;
  for (const line of lines.slice(0, 2000)) if (!line.gone) line.hold(64);
  const gone = lines.filter((line) => line.gone).length;
  assertEquals(gone > 1000, true, `${gone}`);
  assertLessOrEqual(Line.looks, gone);
});

test("Budget ends connections with stuck output while others wait, again each time that woken ones have filled it", async () => {
  const budget = new Budget(100);
  const gone: number[] = [];
  const account = (id: number): Account => {
    const giveWay = () => (gone.push(id), accounts[id].stuck = false, accounts[id].holdOutput(0));
    return new Account(budget, { holdsInput: false, giveWay });
  };
  const accounts = [0, 1, 2, 3].map(account);
  for (const stuck of accounts.slice(0, 2)) stuck.holdOutput(45), stuck.stuck = true;
  assertEquals([gone, budget.crowded], [[], false]);
  await Promise.all(
    accounts.slice(2).map(async (waiting) => {
      await budget.room();
      waiting.holdOutput(60);
    }),
  );
  assertEquals([gone.toSorted(), budget.crowded], [[0, 1], true]);
});

test("Budget ends connections whose output is stuck as soon as another one has to wait for it", () => {
  const budget = new Budget(100);
  const gone: number[] = [];
  const account = (id: number): Account => {
    const giveWay = () => (gone.push(id), accounts[id].stuck = false, accounts[id].holdOutput(0));
    return new Account(budget, { holdsInput: false, giveWay });
  };
  const accounts = [0, 1].map(account);
  accounts[0].holdOutput(90), accounts[0].stuck = true;
  accounts[1].holdOutput(40);
  assertEquals([gone, budget.crowded], [[], true]);
  budget.room();
  assertEquals(gone, [0]);
});
