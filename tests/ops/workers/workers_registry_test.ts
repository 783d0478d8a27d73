import { assertEquals } from "@std/assert";
import { formatAddr } from "../../../internal/api/transport.ts";
import type { ClosedEvent } from "../../../internal/api/events.ts";
import { resolveFraming } from "../../../internal/api/framing.ts";
import { Registry } from "../../../ops/workers/supervision/registry.ts";
import { SYSTEM_CLOCK } from "../../../internal/time/clock.ts";
import { Supervisor } from "../../../ops/workers/supervision/supervisor.ts";
import { test } from "../../kit/bounded.ts";

const localAddr = { transport: "tcp", hostname: "192.0.2.1", port: 80 } as const;

/** The address of a client, by its port. */
const client = (port: number) => ({ transport: "tcp", hostname: "192.0.2.7", port }) as const;

/** A registry of two workers, which do not run; it notes its events, and the ports whose connections have left. */
function registered(onClosed: (registry: Registry, supervisors: Supervisor[]) => void = () => {}) {
  const left: string[] = [];
  const events: string[] = [];
  const ends: ClosedEvent[] = [];
  let time = 0;
  const hooks = { setup: () => ({}) as never, ready() {}, message() {}, down() {} };
  const module = new URL("data:text/javascript,");
  const supervisors = [0, 1].map((index) => new Supervisor(index, { module, maxHeapMb: 256 }, SYSTEM_CLOCK, hooks));
  const registry: Registry = new Registry(
    {
      left(addr) {
        left.push(formatAddr(addr).split(":")[1]);
        events.push(`${left.at(-1)} left`);
      },
      emit(event) {
        events.push("conn" in event ? `${event.type} ${event.conn.id}` : event.type);
        if (event.type === "closed") ends.push(event), onClosed(registry, supervisors);
      },
    },
    () => time,
    resolveFraming(undefined),
  );
  const accept = (supervisor: Supervisor, port: number) => {
    const remoteAddr = client(port);
    const conn = { id: registry.expect(supervisor, remoteAddr), remoteAddr, localAddr };
    registry.accepted(supervisor, conn);
    return conn;
  };
  const counted = () => Array.from(registry.addrs(), (addr) => formatAddr(addr).split(":")[1]).toSorted();
  return { registry, supervisors, left, events, ends, accept, counted, pass: (ms: number) => void (time += ms) };
}

test("A connection counts from its admission to its end, whether its worker serves it, refuses it or crashes", () => {
  const { registry, supervisors: [first, second], left, accept, counted } = registered();
  for (const [worker, port] of [[first, 1], [first, 2], [second, 2], [second, 3]] as const) {
    registry.expect(worker, client(port));
  }
  accept(second, 4);
  assertEquals(counted(), ["1", "2", "2", "3", "4"]);
  registry.refused(second, client(3));
  assertEquals([left, counted()], [["3"], ["1", "2", "2", "4"]]);
  // Behind a proxy, clients of two workers may have one address.
  registry.refused(second, client(2));
  assertEquals([left, counted()], [["3", "2"], ["1", "2", "4"]]);
  registry.expect(second, client(5));
  assertEquals(registry.lost(first, new Error("crashed")), 0);
  assertEquals([left, counted()], [["3", "2", "1", "2"], ["4", "5"]], "That of the other worker was refused");
  assertEquals(registry.lost(second, new Error("crashed")), 1);
  assertEquals([left, counted()], [["3", "2", "1", "2", "5", "4"], []]);
});

test("A connection ends once, also if the hook that is told of a crash ends what the worker had", () => {
  const t = registered((registry, [first]) => void registry.lost(first, new Error("ended")));
  const [first] = t.supervisors;
  for (const port of [1, 2, 3]) t.accept(first, port);
  t.registry.lost(first, new Error("crashed"));
  assertEquals(t.ends.map(({ conn }) => conn.id).toSorted(), [1, 2, 3]);
  assertEquals([t.left.toSorted(), first.active, t.registry.stats(t.supervisors).active], [["1", "2", "3"], 0, 0]);
});

test("What a worker's connections have transferred counts at their end, before the worker tells its totals", () => {
  const { registry, supervisors, events, accept } = registered();
  const [first] = supervisors;
  const totals = { lines: 1, bytesIn: 20, bytesOut: 300 };
  for (const port of [1, 2]) {
    const closed = {
      type: "closed",
      conn: accept(first, port),
      reason: "end",
      durationMs: 5,
      ...totals,
    } as ClosedEvent;
    registry.closed(first, closed);
  }
  const { lines, bytesIn, bytesOut, accepted, active, closed } = registry.stats(supervisors);
  assertEquals([lines, bytesIn, bytesOut, accepted, active, closed.end], [2, 40, 600, 2, 0, 2]);
  assertEquals(supervisors.map(({ accepted }) => accepted), [2, 0]);
  // Its place may be the next one's at once, whose event comes later.
  assertEquals(events.slice(0, 4), ["accepted 1", "closed 1", "1 left", "accepted 2"]);
});

test("The end of a connection whose worker crashes has what that has told of it last, and its whole time", () => {
  const { registry, supervisors: [first], ends, accept, pass } = registered();
  const conns = [accept(first, 1), accept(first, 2)];
  pass(50);
  const told = {
    lines: 1,
    bytesIn: 20,
    bytesOut: 300,
    ageMs: 40,
    idleMs: 10,
    phase: "open",
    waitsFor: "line",
  } as const;
  // By the time its worker tells of it, a connection may have ended.
  registry.told([[conns[1].id, told], [9, told]]);
  pass(50);
  const shown = Array.from(registry.open.values(), (conn) => conn.stats());
  const untold = { ...told, lines: 0, bytesIn: 0, bytesOut: 0, idleMs: 0, waitsFor: "first-byte" };
  assertEquals<unknown>(shown, [{ ...untold, ageMs: 100 }, { ...told, ageMs: 100 }]);
  const error = new Error("crashed");
  registry.lost(first, error);
  const end = { type: "closed", reason: "transport-error", error, durationMs: 100 };
  const { lines, bytesIn, bytesOut } = told;
  assertEquals<unknown>(ends, [
    { ...end, conn: conns[0], lines: 0, bytesIn: 0, bytesOut: 0 },
    { ...end, conn: conns[1], lines, bytesIn, bytesOut },
  ]);
});

test("The counters are the sums of what all workers tell, and of what went wrong here", () => {
  const { registry } = registered();
  const totals = { lines: 1, bytesIn: 20, bytesOut: 300, handlers: 4000, hookErrors: 50_000, queued: 600_000 };
  registry.counters.hookErrors = 7;
  const stats = registry.stats([{ totals }, { totals }] as Supervisor[]);
  assertEquals([stats.lines, stats.bytesIn, stats.bytesOut], [2, 40, 600]);
  assertEquals([stats.handlers, stats.hookErrors, stats.queued], [8000, 100_007, 1_200_000]);
});
