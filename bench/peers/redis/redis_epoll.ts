// `examples/redis.ts` on the kernel's epoll.
//
// Usage: deno run --allow-net --allow-ffi redis_epoll.ts [PORT]
import { formatAddr } from "@x/shouty";
import { listenEpoll } from "@x/shouty/ops";
import { serveRedis } from "../../../examples/redis.ts";

const server = serveRedis({ listener: listenEpoll({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 0) }) });
console.error(`listening on ${formatAddr(server.addr)}`);
