import { assertEquals } from "@std/assert";
import { test } from "./bounded.ts";
import { startServer } from "./server.ts";

/** Connects so many clients that reset at once, while this process looks away. */
function resetMany(port: number, count: number): void {
  const script = `
    import net from "node:net";
    await Promise.all(Array.from({ length: ${count} }, () => new Promise((resolve) => {
      const socket = net.connect(${port}, "127.0.0.1", () => resolve(socket.resetAndDestroy()));
      socket.on("error", resolve);
    })));`;
  const { stderr } = new Deno.Command(Deno.execPath(), { args: ["eval", script] }).outputSync();
  assertEquals(new TextDecoder().decode(stderr), "");
}

test("clients that reset before they are accepted end neither the accepting nor its pace (deno#11599)", async () => {
  await using t = startServer();
  const early = await t.admitted();
  resetMany(t.port, 120);
  assertEquals(await t.talk("still accepting\n"), "STILL ACCEPTING\n");
  const unlucky = t.all("accept-error").length + t.stats.closed.reset;
  assertEquals(unlucky >= 100, true, `${unlucky} clients were reset`);
  assertEquals(t.all("accept-error").every(({ retryMs }) => retryMs <= 5), true);
  await early.write("and serving\n");
  assertEquals(await early.readLine(), "AND SERVING");
});
