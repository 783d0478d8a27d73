/**
 * HTTP: carries requests and answers, within bounds of size, time and number.
 *
 * @module
 */

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { clientOf } from "../../../internal/admission/cidr.ts";
import type { Clock } from "../../../internal/api/serve_options.ts";
import { listenAgain } from "../../sockets/listen_again.ts";
import type { Bounds } from "./bounds.ts";
import { HEADERS, Refusal, refused, type Reply, type Request } from "./exchange.ts";
import type { Streams } from "./streams.ts";

/** Answers a request; `"stream"` sends it events. */
export type Answer = (request: Request) => Promise<Reply | "stream">;

/** Time between two calls that make the port go on listening, in milliseconds. */
const LISTEN_MS = 1000;

/** Maximum number of connections in the kernel's queue; `node:net` has the same. */
const BACKLOG = 511;

/** What carries the requests of one port. */
export class Carrier {
  /** The server, which does not listen yet. */
  readonly server: Server;
  readonly #answer: Answer;
  readonly #streams: Streams;
  readonly #clock: Clock;
  readonly #bounds: Bounds;
  /**
   * The connections, each with its request, if it has one, or `"stream"` if it gets events; that which has been as it is
   * for longest is first.
   */
  readonly #sockets = new Map<Socket, IncomingMessage | "stream" | undefined>();
  #closing = false;
  #cancelListening = () => {};

  private constructor(server: Server, answer: Answer, streams: Streams, clock: Clock, bounds: Bounds) {
    this.server = server;
    this.#answer = answer;
    this.#streams = streams;
    this.#clock = clock;
    this.#bounds = bounds;
    server.keepAliveTimeout = bounds.idleMs;
    server.once("listening", () => this.#goOnAccepting());
    server.on("connection", (socket: Socket) => this.#enter(socket));
    // It fails if what the caller has passed does, such as the clock; that must be the end of this connection alone.
    server.on("request", (request, response) => this.#handle(request, response).catch(() => request.socket.destroy()));
    server.on("clientError", (error: Error & { code?: string }, socket: Socket) => this.#misread(error, socket));
  }

  /**
   * Makes a carrier. `node:http` is loaded here, for those alone who have an admin port.
   *
   * @param answer Answers requests.
   * @param streams Sends events.
   * @param clock The source of time for answers; the times of requests are `node:http`'s.
   * @param bounds The bounds.
   */
  static async make(answer: Answer, streams: Streams, clock: Clock, bounds: Bounds): Promise<Carrier> {
    const { createServer } = await import("node:http");
    const { headMs, requestMs, headBytes } = bounds;
    const server = createServer({
      ...{ headersTimeout: headMs, requestTimeout: requestMs, maxHeaderSize: headBytes },
      connectionsCheckingInterval: Math.min(headMs, requestMs) / 5,
    });
    // A client may end its side behind its request. Node.js documents no option for that: without it, a request whose
    // body comes before that end is given up, and gets no answer.
    Object.assign(server, { httpAllowHalfOpen: true });
    return new Carrier(server, answer, streams, clock, bounds);
  }

  /** Stops listening, lets the last answers be taken, and ends all connections. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#cancelListening();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.server.close(() => resolve());
    this.#streams.close();
    for (const [socket, request] of this.#sockets) if (request === undefined) socket.destroy();
    const end = () => this.#sockets.forEach((_, socket) => socket.destroy());
    const cancel = this.#clock.setTimer(end, this.#bounds.closeMs, true);
    await promise;
    cancel();
  }

  /** Listens again from time to time. Otherwise the port could be dead for ever, health checks included. */
  #goOnAccepting(): void {
    if (typeof this.server.address() === "string") return;
    this.#cancelListening = this.#clock.setTimer(() => this.#listenAgain(), LISTEN_MS, false);
  }

  #listenAgain(): void {
    try {
      listenAgain(this.server, BACKLOG);
    } catch {
      // The next time may do.
    }
    this.#goOnAccepting();
  }

  #enter(socket: Socket): void {
    this.#sockets.set(socket, undefined);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.once("end", () => this.#sideEnded(socket));
    if (this.#sockets.size > this.#bounds.connections) this.#makeRoom(socket);
  }

  /** A client has ended its side. It may wait for an answer; but the rest of a request will not come, and streams end. */
  #sideEnded(socket: Socket): void {
    const state = this.#sockets.get(socket);
    if (state === "stream" || state?.complete === false) socket.destroy();
  }

  /**
   * Ends the connection that has kept its place for longest without a whole request, or, if all have one, without taking
   * its answer. If that was the newcomer, clients that send or read slowly, or not at all, could keep all others out.
   */
  #makeRoom(newcomer: Socket): void {
    // Streams have a limit of their own, and each client of one has to go on reading.
    const others = [...this.#sockets].filter(([socket, state]) => socket !== newcomer && state !== "stream");
    const waiting = others.find(([, state]) => state !== "stream" && !state?.complete);
    const [socket] = waiting ?? others[0] ?? [newcomer];
    // Not when it has closed, which takes a turn: another newcomer would find it here again.
    this.#sockets.delete(socket);
    socket.destroy();
  }

  async #handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = incoming;
    // No client that is in use sends the next request before the answer. One that did could make many answers wait.
    if (this.#sockets.get(socket) !== undefined || socket.destroyed) return void socket.destroy();
    this.#note(socket, incoming);
    const cancel = this.#clock.setTimer(() => socket.destroy(), this.#bounds.replyMs, false);
    response.once("close", () => {
      cancel();
      this.#rest(socket);
    });
    const reply = await this.#replyTo(incoming);
    if (response.destroyed || socket.destroyed) return;
    if (reply === "stream") {
      cancel();
      this.#note(socket, "stream");
      this.#streams.add(response);
    } else {
      send(response, reply, this.#closing || !incoming.complete);
    }
  }

  /** An answer has been written, or its client has left. */
  #rest(socket: Socket): void {
    if (socket.destroyed) return;
    if (this.#closing) socket.destroySoon();
    else this.#note(socket, undefined);
  }

  /** Notes what a connection does from now on. */
  #note(socket: Socket, state: IncomingMessage | "stream" | undefined): void {
    this.#sockets.delete(socket);
    this.#sockets.set(socket, state);
  }

  async #replyTo(incoming: IncomingMessage): Promise<Reply | "stream"> {
    try {
      const request = requestOf(incoming, this.#bounds.bodyBytes);
      const reply = await this.#answer(request);
      if (reply === "stream") this.#streams.checkRoom();
      return reply;
    } catch (error) {
      if (error instanceof Refusal) return refused(error);
      return refused(new Refusal(500, `Cannot answer: ${error instanceof Error ? error.message : error}`));
    }
  }

  /** Answers what is no request, too long or too slow. */
  #misread(error: { code?: string }, socket: Socket): void {
    if (!socket.writable) return void socket.destroy();
    const [status, reason] = error.code === "HPE_HEADER_OVERFLOW"
      ? ["431 Request Header Fields Too Large", "too large"]
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
      ? ["408 Request Timeout", "too slow"]
      : ["400 Bad Request", "not HTTP"];
    const body = `${JSON.stringify({ error: `Cannot read the request: ${reason}` })}\n`;
    const head = `Content-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
    socket.end(`HTTP/1.1 ${status}\r\n${head}${body}`, () => socket.destroy());
  }
}

function send(response: ServerResponse, { status, type, body, headers }: Reply, last: boolean): void {
  response.writeHead(status, {
    ...HEADERS,
    ...(type === undefined ? {} : { "Content-Type": type }),
    ...(body === undefined ? {} : { "Content-Length": new TextEncoder().encode(body).length }),
    // What the client has not finished sending is not read to its end.
    ...(last ? { Connection: "close" } : {}),
    ...headers,
  });
  response.end(body);
}

function requestOf(incoming: IncomingMessage, bodyBytes: number): Request {
  const { method = "", url = "", headers, socket } = incoming;
  if (!url.startsWith("/")) throw new Refusal(400, "Cannot use the target: expected a path");
  // The extensions of chunks have no bound, and `node:http` would read them until the request's time is over.
  if (headers["transfer-encoding"] !== undefined) {
    throw new Refusal(411, "Cannot use Transfer-Encoding: expected a body with Content-Length");
  }
  const [path, ...query] = url.split("?");
  return {
    ...{ method, path, headers },
    query: new URLSearchParams(query.join("?")),
    client: socket.remoteAddress === undefined ? "" : clientOf(socket.remoteAddress),
    body: () => readBody(incoming, bodyBytes),
  };
}

function readBody(incoming: IncomingMessage, most: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const decoder = new TextDecoder();
  let [text, size] = ["", 0];
  incoming.on("data", (part: Uint8Array) => {
    size += part.length;
    if (size <= most) text += decoder.decode(part, { stream: true });
    // A loop over the request would close the connection here, and the client would get no answer.
    else reject(new Refusal(413, `Cannot use a body of more than ${most} bytes`));
  });
  incoming.on("end", () => resolve(text + decoder.decode()));
  incoming.on("error", reject);
  return promise;
}
