// Bun's `Bun.listen` at its best: one set of handlers for all sockets, whole blocks of lines, one write per block,
// `pause()` when the kernel takes only a part, a timeout for the idle and a limit on a line.
//
// Usage: bun bun.ts [PORT|PATH [IDLE_MS [CERT KEY]]], with the path of a Unix socket, and the files of a certificate and
// of its key.
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import process from "node:process";

interface State {
  rest: Uint8Array[]; // the unfinished line in pieces, which are joined when it ends
  restBytes: number;
  owed: Uint8Array | null; // replies that the kernel would not take yet
  ended: boolean;
}

interface Socket {
  data: State;
  write(data: string | Uint8Array): number;
  timeout(seconds: number): void;
  pause(): void;
  resume(): void;
  end(): void;
  terminate(): void;
}

// The part of Bun's types that is used here, so that `deno check` needs no others.
declare const Bun: { listen(options: Record<string, unknown>): { port: number } };

const MAX_LINE_BYTES = 65_536;
const [address = "0", idleMs = "10000", cert, key] = process.argv.slice(2);
const idleSeconds = Math.ceil(Number(idleMs) / 1000);

/** Upper-cases whole lines; removes one CR before an LF. */
function shout(block: Buffer): string {
  const text = block.toString("utf8").toUpperCase();
  return text.includes("\r") ? text.replaceAll("\r\n", "\n") : text;
}

function send(socket: Socket, reply: string): void {
  const state = socket.data;
  if (state.owed) {
    state.owed = Buffer.concat([state.owed, Buffer.from(reply)]);
    return;
  }
  const sent = socket.write(reply);
  // write() counts bytes. A reply is encoded here only if the kernel did not take all of it.
  const bytes = Buffer.byteLength(reply);
  if (sent >= bytes) return;
  state.owed = Buffer.from(reply).subarray(Math.max(sent, 0));
  socket.pause();
}

const where = address.includes("/") ? { unix: address } : { hostname: "127.0.0.1", port: Number(address) };
const credentials = cert && key ? { tls: { cert: readFileSync(cert), key: readFileSync(key) } } : {};
const server = Bun.listen({
  ...where,
  ...credentials,
  allowHalfOpen: true,
  socket: {
    open(socket: Socket) {
      socket.data = { rest: [], restBytes: 0, owed: null, ended: false };
      socket.timeout(idleSeconds);
    },
    data(socket: Socket, chunk: Buffer) {
      const state = socket.data;
      socket.timeout(idleSeconds);
      const end = chunk.lastIndexOf(10) + 1;
      if (end > 0) {
        const block = end === chunk.length ? chunk : chunk.subarray(0, end);
        send(socket, shout(state.restBytes > 0 ? Buffer.concat([...state.rest, block]) : block));
        if (state.restBytes > 0) state.rest = [];
        state.restBytes = 0;
      }
      if (end < chunk.length) {
        state.rest.push(Buffer.from(chunk.subarray(end))); // a copy: Bun reuses the chunk
        state.restBytes += chunk.length - end;
        if (state.restBytes > MAX_LINE_BYTES) socket.terminate();
      }
    },
    drain(socket: Socket) {
      const state = socket.data;
      if (!state.owed) return;
      const sent = socket.write(state.owed);
      state.owed = sent < state.owed.length ? state.owed.subarray(Math.max(sent, 0)) : null;
      if (state.owed) return;
      if (state.ended) socket.end();
      else socket.resume();
    },
    end(socket: Socket) {
      const state = socket.data;
      state.ended = true;
      if (state.restBytes > 0) send(socket, shout(Buffer.concat([...state.rest, Buffer.from("\n")])));
      if (!state.owed) socket.end();
    },
    timeout(socket: Socket) {
      socket.terminate();
    },
    error(socket: Socket) {
      socket.terminate();
    },
  },
});
console.error(`listening on ${where.unix ?? `127.0.0.1:${server.port}`}`);
