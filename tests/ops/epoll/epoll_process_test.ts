import { assertEquals } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { test, withScript } from "../../kit/sockets/epoll_peers.ts";

const SCRIPT = `
  import { listenEpoll } from ${JSON.stringify(new URL("../../../ops/mod.ts", import.meta.url))};
  const listener = listenEpoll({ hostname: "127.0.0.1", port: 0 });
  Deno.permissions.revokeSync({ name: "ffi" });
  const second = listenEpoll({ hostname: "127.0.0.1", port: 0 });
  console.log("port", listener.addr.port);
  const conn = await listener.accept();
  listener.close(), second.close();
  const buffer = new Uint8Array(10);
  while (await conn.read(buffer) !== null) await conn.write(buffer);
  conn.close();
`;

test("epoll keeps a process alive as long as one of its sockets is open, and outlives the permission for it", () =>
  withScript(SCRIPT, ["--allow-ffi"], async (process) => {
    const [, port] = await process.stdoutMatch(/port (\d+)/);
    using client = new TestClient(await Deno.connect({ port: Number(port) }));
    await client.write("0123456789");
    assertEquals((await client.read())?.length, 10);
    await client.closeWrite();
    assertEquals((await process.outcome()).code, 0);
  }));

test("the example of listenEpoll shouts, but for its port as it stands", async () => {
  const source = await Deno.readTextFile(new URL("../../../ops/epoll/epoll.ts", import.meta.url));
  const [, example] = /^ \* ```ts ignore\n(.*?)^ \* ```$/ms.exec(source)!;
  const script = example.replaceAll(/^ \* ?/gm, "").replace("8080", "0");
  await withScript(`${script}console.log("port", listener.addr.port);`, ["--allow-ffi"], async (process) => {
    const [, port] = await process.stdoutMatch(/port (\d+)/);
    using client = new TestClient(await Deno.connect({ port: Number(port) }));
    await client.write("hello\n");
    assertEquals(await client.readLine(), "HELLO");
  });
});

test("without permission for foreign code, or with one for a list, there is an error that says which it takes", async () => {
  for (const permissions of ["--allow-net", "--allow-ffi=libc.so.6", "--allow-ffi --deny-ffi=libm.so.6"]) {
    await withScript(SCRIPT, permissions.split(" "), async (process) => {
      const { code, stderr } = await process.outcome();
      assertEquals([code, /NotCapable: No permission .* --allow-ffi without a list grants/.test(stderr)], [1, true]);
    });
  }
});
