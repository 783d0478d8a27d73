import { assertEquals } from "@std/assert";
import { MemoryListener } from "@x/shouty/testing";
import type { ServerEvent } from "../../../internal/api/events.ts";
import { Loads, WorkerLoads } from "../../../ops/workers/shared/loads.ts";
import { WorkerAdmission } from "../../../ops/workers/worker/worker_admission.ts";
import { test } from "../../kit/bounded.ts";

/** The admission of one worker, and the memory in which it tells how many connections it has. */
function admitting() {
  const loads = new Loads(1);
  return { loads, admission: new WorkerAdmission(() => {}, new WorkerLoads(loads.cells, 0), {}, undefined) };
}

test("A worker tells how many connections it has, whatever becomes of each of them", () => {
  const { loads, admission } = admitting();
  const addr = { transport: "tcp", hostname: "192.0.2.1", port: 1 } as const;
  const after = (what: () => void) => {
    what();
    // The worker asks for its turn, and tells its number by that.
    assertEquals(admission.turn, undefined);
    return loads.of(0);
  };
  const saw = (event: object) => () => admission.saw(event as ServerEvent);
  for (let key = 0; key < 6; key++) admission.ask(addr);
  assertEquals(after(() => admission.answer(0, { id: 1 })), 6);
  assertEquals(after(() => admission.answer(1, { drop: true })), 5);
  assertEquals(after(() => admission.answer(2, { reason: "max-connections", limit: 1 })), 4);
  for (const key of [3, 4, 5]) assertEquals(after(() => admission.answer(key, { id: key })), 4);
  assertEquals(after(saw({ type: "closed", reason: "end" })), 3);
  assertEquals(after(saw({ type: "rejected", reason: "refused" })), 2);
  // These two had not been asked about; the worker tells at once that it prepares fewer.
  for (const [i, event] of [{ type: "rejected", reason: "tls-handshake" }, { type: "gone" }].entries()) {
    admission.queued = () => 9 - i;
    admission.saw(event as ServerEvent);
    assertEquals(loads.of(0), 2 + 9 - i, event.type);
  }
});

test("A worker asks about one connection at a time while connections have to wait, or the server is paused", () => {
  const { admission } = admitting();
  const most = (waits: boolean, paused: boolean) => Object.assign(admission, { waits, paused }).most;
  assertEquals([most(true, false), most(false, true), most(true, true)], [1, 1, 1]);
  assertEquals(most(false, false) > 1, true);
});

test("A worker's admission that closes leaves no rejected connection open whose peer stays", async () => {
  const memory = new MemoryListener();
  const { admission } = admitting();
  using client = memory.connect();
  const transport = await memory.accept();
  let closed = false;
  const close = transport.close.bind(transport);
  transport.close = () => (closed = true, close());
  admission.reject(transport, { reason: "max-connections", limit: 1 });
  assertEquals(await client.readAll(), "error: more than 1 connection\n");
  admission.close();
  assertEquals(closed, true);
});
