import { assertEquals } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import type { AdmissionRules } from "../../../internal/admission/admission.ts";
import type { Verdict } from "../../../ops/workers/shared/wire.ts";
import { SharedAdmission } from "../../../ops/workers/shared_admission.ts";
import { test } from "../../kit/bounded.ts";

const addr = { transport: "tcp", hostname: "192.0.2.1", port: 1 } as const;

const RULES: AdmissionRules = {
  ...{ maxConnections: 2, maxConnectionsPerIp: Infinity, acceptRate: Infinity, acceptRatePerIp: Infinity },
  ...{ maxPenaltyMs: 0, atCapacity: "wait", allowed: () => true },
};

/** The admission of several workers; it notes the answers, and what was rejected. */
function shared(rules: Partial<AdmissionRules> = {}) {
  const answers: Verdict[] = [];
  const rejected: string[] = [];
  let id = 0;
  const note = (_addr: Deno.Addr, reason: string) => void rejected.push(reason);
  const admission = new SharedAdmission({ ...RULES, ...rules }, new FakeClock(), note);
  const ask = (asker: string) =>
    admission.ask({ addr, asker, admit: () => ++id, answer: (verdict) => void answers.push(verdict) });
  return { admission, answers, rejected, ask };
}

test("No worker's connection is admitted before all workers serve, nor during a pause", () => {
  const { admission, answers, ask } = shared();
  ask("first");
  admission.letIn();
  assertEquals(answers, []);
  admission.open();
  assertEquals(answers, [{ id: 1 }]);
  admission.paused = true;
  ask("second");
  admission.letIn();
  assertEquals(answers.length, 1);
  admission.paused = false;
  admission.letIn();
  assertEquals(answers, [{ id: 1 }, { id: 2 }]);
});

test("A worker that has ended leaves no connection that waits, and what waits behind goes on", () => {
  const { admission, answers, ask } = shared();
  admission.open();
  for (const asker of ["first", "first", "first", "second"]) ask(asker);
  assertEquals(answers.length, 2);
  admission.forget(({ asker }) => asker === "first");
  admission.leave(addr);
  admission.letIn();
  assertEquals(answers, [{ id: 1 }, { id: 2 }, { id: 3 }], "That of the second worker");
  admission.leave(addr);
  admission.letIn();
  assertEquals(answers.length, 3, "Nothing else waits");
});

test("New limits let in at once what has waited for room, as far as they go", () => {
  const { admission, answers, ask } = shared();
  admission.open();
  for (let i = 0; i < 4; i++) ask("first");
  admission.setRules({ ...RULES, maxConnections: 3 }, [addr, addr]);
  assertEquals(answers, [{ id: 1 }, { id: 2 }, { id: 3 }]);
});

test("A shutdown drops the connections that wait, and each that comes after that", () => {
  const { admission, answers, ask } = shared({ maxConnections: 1 });
  admission.open();
  for (const asker of ["first", "second"]) ask(asker);
  admission.close();
  assertEquals(answers, [{ id: 1 }, { drop: true }]);
  admission.leave(addr);
  ask("first");
  assertEquals(answers, [{ id: 1 }, { drop: true }, { drop: true }]);
});

test("Connections that workers have rejected themselves bring their client nearer to a penalty", () => {
  const { admission, answers, rejected, ask } = shared({ maxPenaltyMs: 60_000 });
  admission.open();
  for (let i = 0; i < 11; i++) admission.rejected(addr, "tls-handshake");
  ask("first");
  assertEquals([answers, rejected], [[{ reason: "penalty", limit: 60_000 }], ["penalty"]]);
});

test("Connections that are rejected for all workers bring their client nearer to a penalty, too", () => {
  const { admission, rejected, ask } = shared({ maxConnections: 9, maxConnectionsPerIp: 1, maxPenaltyMs: 60_000 });
  admission.open();
  for (let i = 0; i < 13; i++) ask("first");
  assertEquals(rejected, [...Array(11).fill("max-connections-per-ip"), "penalty"]);
});
