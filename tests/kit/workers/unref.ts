/** A program whose server, with a worker that was replaced, does not keep it alive. */

import { serveWorkers } from "@x/shouty/ops";

let started = 0;
const server = await serveWorkers({
  ...{ hostname: "127.0.0.1", port: 0, workers: 1, module: new URL("./shout.ts", import.meta.url) },
  onWorker: ({ type }) => started += type === "worker-started" ? 1 : 0,
});
server.unref();
const client = await Deno.connect({ port: (server.addr as Deno.NetAddr).port });
await client.write(new TextEncoder().encode("throw later\n"));
// Only these timers keep the program alive.
while (started < 2) await new Promise((resolve) => setTimeout(resolve, 10));
client.close();
console.log("replaced");
