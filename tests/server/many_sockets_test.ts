import { assertEquals } from "@std/assert";
import { socketsTurns } from "../../internal/time/event_loop.ts";
import { test } from "../kit/bounded.ts";
import { listenLoopback } from "../kit/server.ts";

/** More sockets than the kernel reports at once, and more than Deno's loop handles in one round. */
const SOCKETS = 4000;

/** Connects, writes to all sockets at once on a byte from stdin, and creates a file when that is done. */
const CLIENT = `
  const conns = [];
  const port = Number(Deno.args[0]);
  for (let i = 0; i < ${SOCKETS}; i++) conns.push(await Deno.connect({ port }));
  await Deno.stdin.read(new Uint8Array(1));
  await Promise.all(conns.map((conn) => conn.write(new Uint8Array(1))));
  await Deno.writeTextFile(Deno.args[1], "sent");
  await Deno.stdin.read(new Uint8Array(1));
`;

test(`socketsTurns() waits until the bytes of ${SOCKETS} sockets are read`, async () => {
  const listener = listenLoopback();
  const { port } = listener.addr as Deno.NetAddr;
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/client.ts`, CLIENT);
  const args = ["run", "-A", "--no-config", `${folder}/client.ts`, String(port), `${folder}/sent`];
  await using client = new Deno.Command(Deno.execPath(), { args, stdin: "piped" }).spawn();
  const transports = [];
  for (let i = 0; i < SOCKETS; i++) transports.push(await listener.accept());
  let read = 0;
  const reading = transports.map((transport) => transport.read(new Uint8Array(1)).then(() => read++));
  const stdin = client.stdin.getWriter();
  await stdin.write(new Uint8Array(1));
  // Blocks the event loop until the kernel has all bytes.
  while (!isSent(`${folder}/sent`));
  await socketsTurns(SOCKETS);
  assertEquals(read, SOCKETS);
  await Promise.all(reading);
  for (const transport of transports) transport.close();
  await stdin.close();
  await client.status;
  await listener.close();
  await Deno.remove(folder, { recursive: true });
}, 60);

function isSent(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
