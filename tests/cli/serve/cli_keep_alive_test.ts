import { assertEquals, assertMatch } from "@std/assert";
import { converse, runCommand, startServer } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";

/** Whether the kernel has a keep-alive timer for the server's end of a connection (proc(5): timer 2 of /proc/net/tcp). */
async function hasKeepAliveTimer(port: number): Promise<boolean> {
  const conn = await Deno.connect({ port });
  try {
    const ends = [port, conn.localAddr.port].map((port) => port.toString(16).toUpperCase().padStart(4, "0"));
    const row = new RegExp(`: \\w+:${ends[0]} \\w+:${ends[1]} \\w+ \\S+ (\\d\\d):`);
    await conn.write(new TextEncoder().encode("hello\n"));
    await conn.read(new Uint8Array(6));
    const timer = () => row.exec(Deno.readTextFileSync("/proc/net/tcp"))?.[1];
    // The timer of a reply that is not acknowledged yet goes first.
    for (let left = 100; left > 0 && timer() === "01"; left--) await new Promise((resolve) => setTimeout(resolve, 10));
    return timer() === "02";
  } finally {
    conn.close();
  }
}

const ONLY_LINUX = Deno.build.os === "linux" ? "" : " (skipped: only Linux tells of timers)";

for (const engine of ["deno", "epoll"]) {
  const missing = ONLY_LINUX || (engine === "epoll" ? NO_EPOLL : "");
  Deno.test({
    name: `--keep-alive-ms has the kernel probe silent clients, with --engine ${engine}${missing}`,
    ignore: missing !== "",
    fn: async () => {
      for (const [time, expected] of [["20s", true], ["off", false]] as const) {
        const args = ["--engine", engine, "--idle-timeout", "off", "--keep-alive-ms", time];
        await using server = await startServer(args, { permissions: ["--allow-net", "--allow-ffi"] });
        assertEquals(await hasKeepAliveTimer(server.port), expected, time);
        assertEquals(await converse(server, "hello\n"), "HELLO\n");
      }
    },
  });
}

Deno.test("--keep-alive-ms refuses times that the kernel does not have", async () => {
  const { code, stderr } = await runCommand(["--keep-alive-ms", "500ms"]);
  assertEquals(code, 2);
  assertMatch(stderr, /^shouty: cannot use --keep-alive-ms "500ms": expected .*\n$/);
});
