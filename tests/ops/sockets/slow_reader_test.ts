/** Slow readers on real sockets: what the kernel tells of them, and when they are gone. */
import { assertEquals } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";

/** Serves megabytes to a client that reads a fixed number of bytes per second, by a clock that the test moves. */
const PROGRAM = `
  import { serveConnections } from "@x/shouty";
  import { listenEpoll } from "@x/shouty/ops";
  import { FakeClock } from "@x/shouty/testing";
  const [engine, rate] = Deno.args;
  const where = { hostname: "127.0.0.1", port: 0 };
  const listener = engine === "epoll" ? listenEpoll(where) : Deno.listen(where);
  const clock = new FakeClock();
  let ended = "";
  const onEvent = (event) => event.type === "closed" && (ended = event.reason);
  const server = serveConnections({ listener, clock, onEvent, idleTimeout: 10_000 }, async (conn) => {
    for (let left = 200; left > 0; left--) await conn.write("x".repeat(60_000));
  });
  const client = await Deno.connect({ port: server.addr.port });
  // The kernel's buffers are full when no more comes of itself.
  const rest = () => new Promise((resolve) => setTimeout(resolve, 20));
  for (let sent = -1; sent !== server.stats().bytesOut; await rest()) sent = server.stats().bytesOut;
  // The server sets its timer again once it has asked the kernel about the sockets, however long that takes.
  const asked = async () => {
    do await rest(); while (clock.pending === 0 && ended === "");
  };
  const buffer = new Uint8Array(4096);
  for (let second = 0; second < 60 && ended === ""; second++) {
    for (let got = 0; got < Number(rate);) got += await client.read(buffer);
    await rest();
    await clock.advance(1000);
    await asked();
  }
  const read = ended;
  // What the server's side of the kernel has not got rid of (proc(5), tx_queue): at the end, it sends some of it by itself.
  const hex = ({ port }) => port.toString(16).toUpperCase().padStart(4, "0");
  const row = new RegExp(": \\\\w+:" + hex(client.remoteAddr) + " \\\\w+:" + hex(client.localAddr) + " \\\\w+ (\\\\w+):");
  const queued = () => Deno.build.os === "linux" ? row.exec(Deno.readTextFileSync("/proc/self/net/tcp"))?.[1] : "";
  let left = queued();
  let seconds = 0;
  for (; ended === "" && seconds < 60; seconds++) {
    await clock.advance(1000);
    await asked();
    if (ended === "" && left !== (left = queued())) seconds = -1; // This one does not count.
  }
  console.log(JSON.stringify([read, ended, seconds]));
  Deno.exit();
`;

/** What became of the client while it read, and then, and after how many seconds in which its side took nothing. */
async function play(engine: string, rate: number, command: string[]): Promise<[string, string, number]> {
  const [program, ...args] = [...command, Deno.execPath(), "run", "--allow-all", "-", engine, `${rate}`];
  const cwd = new URL("../../..", import.meta.url);
  const process = new Deno.Command(program, { args, cwd, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
  const stdin = process.stdin.getWriter();
  await stdin.write(new TextEncoder().encode(PROGRAM));
  await stdin.close();
  const { stdout, stderr } = await process.output();
  const text = new TextDecoder().decode(stdout);
  if (text === "") throw new Error(new TextDecoder().decode(stderr));
  return JSON.parse(text);
}

/**
 * Runs a command on a loopback of its own, whose packets are as small as those of a real network, and whose receivers have
 * small buffers: one with megabytes tells the sender nothing of what is read until a sixteenth of them is free.
 */
const SMALL_PACKETS = [
  ...["unshare", "--net", "sh", "-c"],
  'ip link set lo mtu 1500 up && echo "4096 8192 16384" >/proc/sys/net/ipv4/tcp_rmem && exec "$0" "$@"',
];

async function reasonAgainst(): Promise<string> {
  try {
    const [program, ...args] = [...SMALL_PACKETS, "true"];
    if ((await new Deno.Command(program, { args, stdout: "null", stderr: "null" }).output()).success) return "";
  } catch {
    // There is no such program.
  }
  return " (skipped: no network namespace can be made here)";
}

const NO_NAMESPACE = await reasonAgainst();

test(
  "on epoll, a client that takes 5 KB a second stays, and one that takes nothing is gone after writeTimeout",
  async () => {
    const [read, ended, seconds] = await play("epoll", 5000, SMALL_PACKETS);
    assertEquals([read, ended], ["", "write-timeout"]);
    // The server looks every 2.5 s at what its side has taken, and the test's clock moves in seconds.
    assertEquals(seconds >= 10 && seconds <= 14, true, `${seconds} s`);
  },
  120,
  NO_EPOLL || NO_NAMESPACE,
);

test(
  "on Deno's sockets, a client that takes 60 KB a second stays, and one that takes nothing is gone in the end",
  async () => {
    const [read, ended, seconds] = await play("deno", 60_000, []);
    assertEquals([read, ended], ["", "write-timeout"]);
    assertEquals(seconds <= 30, true, `${seconds} s`);
  },
  120,
);
