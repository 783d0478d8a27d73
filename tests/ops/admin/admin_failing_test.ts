import type { ServerResponse } from "node:http";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import type { Clock } from "../../../internal/api/serve_options.ts";
import { SYSTEM_CLOCK } from "../../../internal/time/clock.ts";
import { BOUNDS } from "../../../ops/admin/http/bounds.ts";
import { Streams } from "../../../ops/admin/http/streams.ts";
import { openPort, send, startAdmin, startCarrier } from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";

const READY = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

test("a status that fails ends the streams, and not the process", async () => {
  let left = 2;
  const event = () => {
    if (left-- > 0) return 0;
    throw new Error("No status");
  };
  await using carrier = await startCarrier(() => Promise.resolve("stream"), event, { eventMs: 20 });
  assertStringIncludes(await send(carrier.addr, READY), "data: 0\n");
  // Also if it fails as the stream begins.
  assertEquals((await send(carrier.addr, READY)).includes("data:"), false);
  assertEquals(left, -2);
});

test("nothing is written behind the end of a stream, and a client that does not take the end loses it", async () => {
  const clock = new FakeClock();
  const streams = new Streams(() => 0, clock, { ...BOUNDS, eventMs: 1000, streamMs: 3000, eventTakenMs: 5000 });
  const calls: string[] = [];
  const response = {
    writableEnded: false,
    once() {},
    writeHead() {},
    write(text: string, taken?: () => void) {
      calls.push(text.split("\n", 1)[0]);
      taken?.();
    },
    end() {
      this.writableEnded = true;
      calls.push("end");
    },
    destroy: () => calls.push("destroy"),
  };
  streams.add(response as unknown as ServerResponse);
  await clock.advance(5000);
  const status = "event: status";
  assertEquals(calls, ["retry: 1000", status, status, status, "end"]);
  // Nor when the port is closed meanwhile.
  streams.close();
  await clock.advance(3000);
  assertEquals(calls.slice(4), ["end", "destroy"]);
});

test("an admin port whose socket cannot get its mode is not open", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/admin`;
  const { chmodSync } = Deno;
  Deno.chmodSync = () => {
    throw new Deno.errors.PermissionDenied("No change of the mode");
  };
  try {
    await assertRejects(() => openPort({ place: { path, mode: 0o600 } }), Deno.errors.PermissionDenied);
  } finally {
    Deno.chmodSync = chmodSync;
  }
  await assertRejects(() => Deno.connect({ transport: "unix", path }));
  await Deno.remove(folder, { recursive: true });
});

test("a clock that fails ends the connection of a request, and not the process", async () => {
  let fails = false;
  const setTimer: Clock["setTimer"] = (...timer) => {
    if (fails) throw new Error("No timer");
    return SYSTEM_CLOCK.setTimer(...timer);
  };
  await using admin = await startAdmin({ clock: { now: SYSTEM_CLOCK.now, setTimer } });
  fails = true;
  assertEquals(await send(admin.port.addr, READY).catch(() => ""), "");
  fails = false;
  assertEquals((await admin.ask("GET /readyz")).body, "ready\n");
});
