// GET and SET of Redis by hand on Node's `net`: no limits, no timeouts but the idle one, commands in arrays alone.
//
// Usage: node redis.mjs [PORT]
import { createServer } from "node:net";
import process from "node:process";
import { Commands } from "./resp.mjs";

const server = createServer({ noDelay: true }, (socket) => {
  const commands = new Commands();
  socket.setTimeout(600_000, () => socket.destroy());
  socket.on("error", () => socket.destroy());
  socket.on("drain", () => socket.resume());
  socket.on("data", (chunk) => {
    const replies = commands.answer(chunk);
    if (replies !== "" && !socket.write(replies, "latin1")) socket.pause();
  });
});
server.listen({ port: Number(process.argv[2] ?? 0), host: "127.0.0.1", backlog: 4096 }, () => {
  console.error(`listening on 127.0.0.1:${server.address().port}`);
});
