// Node's `net` at its best: whole blocks of lines, one string and one write per block, `pause()` when the peer
// does not read, a timeout for the idle and a limit on a line.
//
// Usage: node node.mjs [PORT [IDLE_MS]]
import { Buffer } from "node:buffer";
import { createServer } from "node:net";
import process from "node:process";

const MAX_LINE_BYTES = 65_536;
const [port = "0", idleMs = "10000"] = process.argv.slice(2);

/** Upper-cases whole lines; removes one CR before an LF. */
function shout(block) {
  const text = block.toString("utf8").toUpperCase();
  return text.includes("\r") ? text.replaceAll("\r\n", "\n") : text;
}

function serve(socket) {
  let rest = null; // the unfinished line in pieces, which are joined when it ends
  let restBytes = 0;
  socket.setTimeout(Number(idleMs), () => socket.destroy());
  socket.on("error", () => socket.destroy());
  socket.on("drain", () => socket.resume());
  socket.on("data", (chunk) => {
    const end = chunk.lastIndexOf(10) + 1;
    if (end > 0) {
      let block = end === chunk.length ? chunk : chunk.subarray(0, end);
      if (rest) block = Buffer.concat([...rest, block]);
      rest = null;
      restBytes = 0;
      if (!socket.write(shout(block))) socket.pause();
    }
    if (end < chunk.length) {
      const tail = end === 0 ? chunk : chunk.subarray(end);
      if (rest) rest.push(tail);
      else rest = [tail];
      restBytes += tail.length;
      if (restBytes > MAX_LINE_BYTES) socket.destroy();
    }
  });
  socket.on("end", () => {
    if (rest) socket.write(shout(Buffer.concat([...rest, Buffer.from("\n")])));
    socket.end();
  });
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, serve);
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 }, () => {
  console.error(`listening on 127.0.0.1:${server.address().port}`);
});
