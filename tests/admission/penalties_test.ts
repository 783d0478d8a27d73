import { assertEquals } from "@std/assert";
import { Admission, admissionRules, resolveAdmission } from "../../internal/admission/admission.ts";
import { Penalties } from "../../internal/admission/penalties.ts";
import { test } from "../kit/bounded.ts";
import { inMemory, startServer } from "../kit/server.ts";

/** Rejects a client so often that the next rejection is its first penalty. */
function rejectTenTimes(penalties: Penalties, client: string, now = 0): void {
  for (let i = 0; i < 10; i++) penalties.rejected(client, now);
}

test(
  "ten rejections of a client do no harm, and each further one shuts it out twice as long as the one before",
  () => {
    const penalties = new Penalties(60_000);
    rejectTenTimes(penalties, "a");
    assertEquals(penalties.applies("a", 0), false);
    let now = 0;
    for (const penalty of [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]) {
      penalties.rejected("a", now);
      assertEquals(penalties.applies("a", now + penalty - 1), true);
      assertEquals(penalties.applies("a", now += penalty), false);
    }
  },
);

test("a penalty of one client concerns no other", () => {
  const penalties = new Penalties(60_000);
  rejectTenTimes(penalties, "a");
  penalties.rejected("a", 0);
  penalties.rejected("b", 0);
  assertEquals([penalties.applies("a", 1), penalties.applies("b", 1)], [true, false]);
});

test("a client that behaves for the longest penalty begins anew, and takes no memory then", () => {
  const penalties = new Penalties(5000);
  rejectTenTimes(penalties, "a");
  penalties.rejected("a", 0);
  assertEquals(penalties.size, 1);
  penalties.rejected("b", 6000);
  assertEquals(penalties.size, 1, "Only the client that was rejected last is remembered");
  penalties.rejected("a", 6000);
  assertEquals(penalties.applies("a", 6000), false);
});

test(
  "a client that behaves for the longest penalty begins anew, although another one is shut out for longer",
  () => {
    const penalties = new Penalties(60_000);
    for (let i = 0; i < 20; i++) penalties.rejected("a", 0);
    rejectTenTimes(penalties, "b");
    penalties.rejected("b", 60_000);
    assertEquals([penalties.size, penalties.applies("b", 60_000)], [2, false]);
  },
);

test("of ten thousand clients, those that were rejected last are remembered", () => {
  const penalties = new Penalties(60_000);
  for (let i = 0; i < 20_000; i++) penalties.rejected(`client ${i}`, 0);
  assertEquals(penalties.size, 10_000);
  // One of the eldest comes back. From then on there are elder ones, which make room for others.
  for (let i = 0; i < 10; i++) penalties.rejected("client 10001", 0);
  for (const other of ["one more", "another"]) penalties.rejected(other, 0);
  assertEquals([penalties.size, penalties.applies("client 10001", 0)], [10_000, true]);
});

test("a connection that is rejected for a penalty does not count for acceptRatePerIp", () => {
  let now = 0;
  const rules = admissionRules(resolveAdmission({ acceptRatePerIp: 1, maxPenaltyMs: 60_000 }));
  const admission = new Admission(rules, () => now);
  const addr = { transport: "tcp", hostname: "192.0.2.1", port: 1 } as const;
  for (let i = 0; i < 11; i++) admission.rejected(addr, "refused");
  const enter = () => {
    const decision = admission.enter(addr);
    return "reason" in decision ? decision.reason : decision.kind;
  };
  now = 999;
  assertEquals(enter(), "penalty");
  now = 1000;
  assertEquals(enter(), "admit");
});

test(
  "maxPenaltyMs shuts a client out after its eleventh rejection, without a word, and lets it in again",
  async () => {
    const { listener, clock } = inMemory();
    await using t = startServer({
      listener,
      clock,
      maxConnectionsPerIp: 1,
      maxPenaltyMs: 60_000,
      idleTimeout: Infinity,
    });
    const first = await t.admitted();
    for (let i = 1; i <= 11; i++) {
      const text = await (await t.connect()).readAll();
      assertEquals(text, "error: more than 1 connection from one address\n", `Rejection ${i}`);
    }
    assertEquals(await (await t.connect()).readAll(), "");
    const reasons = () => t.all("rejected").map(({ reason, limit }) => `${reason} ${limit}`);
    assertEquals(reasons().at(-1), "penalty 60000");
    first.close();
    await t.closed();
    assertEquals(await (await t.connect()).readAll(), "", "There is room, but the client is shut out");
    await clock.advance(1000);
    assertEquals(await t.talk("back\n"), "BACK\n");
    assertEquals(t.stats.rejected, 13);
  },
);

test("rejections that are not the client's doing have no penalty", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxConnections: 1, maxPenaltyMs: 60_000, idleTimeout: Infinity });
  await t.admitted();
  for (let i = 0; i < 15; i++) await (await t.connect()).readAll();
  assertEquals(new Set(t.all("rejected").map(({ reason }) => reason)), new Set(["max-connections"]));
});

test("an admit that fails shuts no client out, and one that refuses does", async () => {
  const { listener, clock } = inMemory();
  let refuses = false;
  const admit = (): false => {
    if (refuses) return false;
    throw new Error("The database is away");
  };
  await using t = startServer({ listener, clock, admit, maxPenaltyMs: 60_000 });
  for (let i = 0; i < 15; i++) await (await t.connect()).readAll();
  const reasons = () => new Set(t.all("rejected").map(({ reason }) => reason));
  assertEquals(reasons(), new Set(["refused"]));
  refuses = true;
  for (let i = 0; i < 12; i++) await (await t.connect()).readAll();
  assertEquals(reasons(), new Set(["refused", "penalty"]));
});
