import { assertEquals } from "@std/assert";
import { Admission, type AdmissionRules, decide } from "../../internal/admission/admission.ts";
import { clientOf } from "../../internal/admission/cidr.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { assertFreed } from "../kit/sockets/freed_port.ts";
import { inMemory, startServer } from "../kit/server.ts";

const OPEN: AdmissionRules = {
  maxConnections: Infinity,
  maxConnectionsPerIp: Infinity,
  acceptRate: Infinity,
  acceptRatePerIp: Infinity,
  maxPenaltyMs: 0,
  atCapacity: "reject",
  allowed: () => true,
};

function addr(hostname: string): Deno.NetAddr {
  return { transport: "tcp", hostname, port: 1 };
}

const DENIED = addr("192.0.2.9");

testOnce("decide() admits a connection if no rule is against it", () => {
  const newcomer = { addr: addr("192.0.2.1"), connections: 0, tooFast: false, penalized: false };
  assertEquals(decide(OPEN, 9, newcomer).kind, "admit");
});

testOnce("decide() names the first rule that a connection breaks, and its limit", () => {
  const rules = { ...OPEN, maxConnections: 5, maxConnectionsPerIp: 2, allowed: (of: Deno.Addr) => of !== DENIED };
  const of = (active: number, addr: Deno.Addr, connections: number) =>
    decide(rules, active, { addr, connections, tooFast: false, penalized: false });
  assertEquals(of(5, DENIED, 2), { kind: "reject", reason: "denied" });
  assertEquals(of(5, addr("192.0.2.1"), 2), { kind: "reject", reason: "max-connections", limit: 5 });
  assertEquals(of(4, addr("192.0.2.1"), 2), { kind: "reject", reason: "max-connections-per-ip", limit: 2 });
  assertEquals(of(4, addr("192.0.2.1"), 1), { kind: "admit" });
});

testOnce("Admission makes connections wait at capacity if atCapacity says so", () => {
  const rules = { ...OPEN, maxConnections: 5, atCapacity: "wait" } as const;
  const admission = new Admission(rules, () => 0);
  for (let i = 0; i < 5; i++) admission.enter(addr("192.0.2.1"));
  assertEquals(admission.delay(), Infinity);
  admission.leave(addr("192.0.2.1"));
  assertEquals(admission.delay(), 0);
});

testOnce("Admission counts each open connection once, however often its rules change", () => {
  const [rules, client] = [{ ...OPEN, maxConnectionsPerIp: 3 }, addr("192.0.2.1")];
  const admission = new Admission(rules, () => 0);
  for (let open = 1; open <= 3; open++) {
    assertEquals(admission.enter(client).kind, "admit");
    admission.setRules(rules, Array(open).fill(client));
  }
  assertEquals(admission.enter(client).kind, "reject");
});

testOnce("Admission counts no peers of Unix sockets for a client, whatever rule depends on clients", () => {
  const admission = new Admission(
    { ...OPEN, maxConnectionsPerIp: 1, acceptRatePerIp: 1, maxPenaltyMs: 60_000 },
    () => 0,
  );
  const peer = { transport: "unix", path: "" } as const;
  for (let i = 0; i < 20; i++) admission.rejected(peer, "refused");
  assertEquals(Array.from({ length: 5 }, () => admission.enter(peer).kind), Array(5).fill("admit"));
  assertEquals(admission.size, 0);
});

testOnce("Admission forgets a client when its last connection has ended", () => {
  const admission = new Admission({ ...OPEN, maxConnectionsPerIp: 3 }, () => 0);
  const clients = [1, 1, 2].map((host) => addr(`192.0.2.${host}`));
  for (const client of clients) admission.enter(client);
  const sizes = clients.map((client) => (admission.leave(client), admission.size));
  assertEquals(sizes, [2, 1, 0]);
});

testOnce("Admission lets in acceptRate connections at once, and then acceptRate a second", () => {
  let now = 0;
  const admission = new Admission({ ...OPEN, acceptRate: 2 }, () => now);
  const enter = () => {
    const delay = admission.delay();
    if (delay === 0) admission.enter(addr("192.0.2.1"));
    return delay;
  };
  assertEquals([enter(), enter(), enter()], [0, 0, 500]);
  now = 499;
  assertEquals(enter(), 1);
  now = 500;
  assertEquals([enter(), enter()], [0, 500]);
  now = 60_000;
  assertEquals([enter(), enter(), enter()], [0, 0, 500], "A long quiet time allows no larger burst");
});

testOnce("Admission lets in one connection in four seconds at an acceptRate of a quarter", () => {
  let now = 0;
  const admission = new Admission({ ...OPEN, acceptRate: 0.25 }, () => now);
  assertEquals(admission.delay(), 0);
  admission.enter(addr("192.0.2.1"));
  now = 3000;
  assertEquals(admission.delay(), 1000);
  now = 4000;
  assertEquals(admission.delay(), 0);
});

testOnce("decide() rejects a client above acceptRatePerIp before any rule that costs an error line", () => {
  const rules = { ...OPEN, maxConnections: 5, acceptRatePerIp: 3, allowed: () => false };
  const newcomer = { addr: DENIED, connections: 0, tooFast: true, penalized: false };
  const expected = { kind: "reject", reason: "accept-rate-per-ip", limit: 3 } as const;
  assertEquals(decide(rules, 5, newcomer), expected);
});

testOnce(
  "Admission lets each client in at acceptRatePerIp, and connections above it do not count for acceptRate",
  () => {
    let now = 0;
    const admission = new Admission({ ...OPEN, acceptRate: 5, acceptRatePerIp: 2 }, () => now);
    const enter = (hostname: string) => admission.enter(addr(hostname)).kind;
    const storm = () =>
      Array.from({ length: 100 }, (_, i) => enter(`2001:db8::${i + 1}`)).filter((it) => it === "admit");
    assertEquals(storm().length, 2);
    assertEquals([enter("192.0.2.1"), enter("::ffff:192.0.2.1"), admission.delay()], ["admit", "admit", 0]);
    assertEquals([enter("192.0.2.1"), enter("192.0.2.2"), admission.delay()], ["reject", "admit", 200]);
    now = 500;
    assertEquals(storm().length, 1, "A client that keeps trying gets its full rate");
  },
);

testOnce("Admission does not apply acceptRatePerIp to peers without an IP address", () => {
  const admission = new Admission({ ...OPEN, acceptRatePerIp: 1 }, () => 0);
  const peer = { transport: "unix", path: "/run/x.sock" } as const;
  assertEquals([admission.enter(peer).kind, admission.enter(peer).kind], ["admit", "admit"]);
});

testOnce("Admission counts a client's connections while they are open", () => {
  const admission = new Admission({ ...OPEN, maxConnectionsPerIp: 1 }, () => 0);
  const kinds = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    .map((hostname) => admission.enter(addr(hostname)).kind);
  assertEquals(kinds, ["admit", "reject", "admit", "admit", "reject", "admit"]);
  admission.leave(addr("::ffff:192.0.2.1"));
  assertEquals(admission.enter(addr("192.0.2.1")).kind, "admit");
});

testOnce("An IPv6 client is its /64, however its address is written", () => {
  const written = ["2001:db8::1", "2001:0db8:0:0:ffff::", "2001:DB8:0:0:1:2:3:4", "2001:db8::1%eth0"];
  for (const hostname of written) assertEquals(clientOf(hostname), "2001:db8:0:0::/64");
  assertEquals(clientOf("::1"), "0:0:0:0::/64");
  assertEquals(clientOf("2001:db8::1:2:3:4:5"), "2001:db8:0:1::/64");
  const mapped = ["::FFFF:203.0.113.7", "::ffff:cb00:7107", "0:0:0:0:0:ffff:203.0.113.7", "::ffff:203.0.113.7%eth0"];
  for (const hostname of mapped) assertEquals(clientOf(hostname), "203.0.113.7");
  assertEquals(clientOf("1::ffff:203.0.113.7"), "1:0:0:0::/64");
  assertEquals(clientOf("203.0.113.7"), "203.0.113.7");
});

test("serve() rejects a client's connection above maxConnectionsPerIp with a line that names the limit", async () => {
  await using t = startServer({ maxConnectionsPerIp: 2 });
  using first = await t.admitted();
  using _second = await t.admitted();
  assertEquals(await t.talk("hello\n"), "error: more than 2 connections from one address\n");
  const { reason, limit } = await t.until("rejected");
  assertEquals([reason, limit], ["max-connections-per-ip", 2]);

  first.close();
  await t.closed();
  assertEquals(await t.talk("hello\n"), "HELLO\n");
});

testOnce("serve() tells a hundred rejected clients at a time why, and closes others at once", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, maxConnections: 1, idleTimeout: Infinity });
  const first = await t.admitted();
  const clients = await Promise.all(Array.from({ length: 102 }, () => t.connect()));
  await t.until("rejected", 102);
  const told = await Promise.all(clients.map((client) => client.readAll().catch(() => "")));
  assertEquals(new Set(told.slice(0, 100)), new Set(["error: more than 1 connection\n"]));
  assertEquals(told.slice(100), ["", ""]);
  await clock.advance(2000);
  const late = await t.connect();
  assertEquals(await late.readAll(), "error: more than 1 connection\n", "The time of the others is up");
  first.close();
});

test("serve() at capacity leaves the next connection in the kernel until there is room", async () => {
  await using t = startServer({ maxConnections: 1, atCapacity: "wait" });
  using first = await t.admitted();
  const second = t.talk("hello\n");
  await first.write("me\n");
  assertEquals(await first.readLine(), "ME");
  assertEquals(t.stats.accepted, 1);
  await first.closeWrite();
  assertEquals(await second, "HELLO\n");
  assertEquals([t.stats.accepted, t.stats.rejected], [2, 0]);
});

test("shutdown() does not wait for a connection that waits in the backlog", async () => {
  await using t = startServer({ maxConnections: 1, atCapacity: "wait" });
  using _only = await t.admitted();
  await t.server.shutdown({ drain: "finish" });
  await assertFreed(t.port);
});

test("serve() serves only addresses on the list allow, and none on the list deny", async () => {
  await using allowed = startServer({ allow: ["127.0.0.0/8", "::1"] });
  assertEquals(await allowed.talk("hello\n"), "HELLO\n");
  await using elsewhere = startServer({ allow: ["192.0.2.0/24"] });
  assertEquals(await elsewhere.talk("hello\n"), "error: address not allowed\n");
  await using denied = startServer({ allow: ["127.0.0.0/8"], deny: ["127.0.0.1"] });
  assertEquals(await denied.talk("hello\n"), "error: address not allowed\n");
  assertEquals((await denied.until("rejected")).reason, "denied");
});

testOnce("serve() serves peers without an IP address whatever the list allow says", async () => {
  const path = await Deno.makeTempFile();
  await Deno.remove(path);
  await using _t = startServer({ listener: Deno.listen({ transport: "unix", path }), allow: ["192.0.2.0/24"] });
  using conn = await Deno.connect({ transport: "unix", path });
  await conn.write(new TextEncoder().encode("hello\n"));
  const buffer = new Uint8Array(16);
  assertEquals(await conn.read(buffer), 6);
});
