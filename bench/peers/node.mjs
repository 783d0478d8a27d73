// Node's `net` at its best: whole blocks of lines, one string and one write per block, `pause()` when the peer
// does not read, a timeout for the idle and a limit on a line.
//
// Usage: node node.mjs [PORT|PATH [IDLE_MS [CERT KEY [CLIENT_CA]]]], with the path of a Unix socket, and the files of a
// certificate, of its key, and of the authority whose certificates clients have to show.
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import net from "node:net";
import process from "node:process";
import tls from "node:tls";

const MAX_LINE_BYTES = 65_536;
const [address = "0", idleMs = "10000", cert, key, ca] = process.argv.slice(2);

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

const credentials = cert && {
  cert: readFileSync(cert),
  key: readFileSync(key),
  ...(ca ? { ca: readFileSync(ca), requestCert: true, rejectUnauthorized: true } : {}),
};
const options = { allowHalfOpen: true, noDelay: true, ...credentials };
const server = credentials ? tls.createServer(options, serve) : net.createServer(options, serve);
server.on("tlsClientError", () => {}); // its socket is destroyed by then
const where = address.includes("/") ? { path: address } : { port: Number(address), host: "127.0.0.1" };
server.listen({ ...where, backlog: 4096 }, () => {
  console.error(`listening on ${where.path ?? `127.0.0.1:${server.address().port}`}`);
});
