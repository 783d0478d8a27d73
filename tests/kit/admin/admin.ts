/**
 * A server with an admin port, and requests to it, byte for byte.
 *
 * @module
 */

import type { ServeOptions, Server } from "@x/shouty";
import { bind } from "../../../ops/admin/http/bind.ts";
import { BOUNDS, type Bounds } from "../../../ops/admin/http/bounds.ts";
import { type Answer as AnswerOf, Carrier } from "../../../ops/admin/http/carrier.ts";
import { Streams } from "../../../ops/admin/http/streams.ts";
import { AdminPort, type PortParts } from "../../../ops/admin/port.ts";
import { SYSTEM_CLOCK } from "../../../internal/time/clock.ts";
import { startServer, type TestServer } from "../server.ts";

/** A token that is long enough. */
export const TOKEN = "a-token-for-tests-only";

/** An answer. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** A request: its method and path, such as `POST /drain`, and what else it has. */
export interface AskOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Without this, the header is the address. */
  readonly host?: string;
  /** Sent as a bearer token. */
  readonly token?: string;
}

/** A server with an admin port. */
export interface TestAdmin extends AsyncDisposable {
  readonly t: TestServer;
  readonly port: AdminPort;
  /** Asks the admin port. */
  ask(what: string, options?: AskOptions): Promise<Answer>;
  /** Asks it, and reads the answer as JSON. */
  // deno-lint-ignore no-explicit-any
  json(what: string, options?: AskOptions): Promise<any>;
}

/** Starts a server with an admin port on the loopback. */
export async function startAdmin(parts: Partial<PortParts> = {}, options: ServeOptions = {}): Promise<TestAdmin> {
  const port = await openPort(parts);
  const t = startServer({ ...options, onEvent: parts.metrics?.onEvent });
  port.attach(t.server as Server<unknown>);
  const asked = (what: string, options?: AskOptions) => ask(port.addr, what, options);
  return {
    ...{ t, port, ask: asked },
    json: async (what, options) => JSON.parse((await asked(what, options)).body),
    async [Symbol.asyncDispose]() {
      await port.close();
      await t[Symbol.asyncDispose]();
    },
  };
}

/** Opens an admin port on the loopback that has no server yet. */
export function openPort(parts: Partial<PortParts> = {}): Promise<AdminPort> {
  return AdminPort.open({
    ...{ place: { hostname: "127.0.0.1", port: 0 }, token: undefined, hosts: [], name: "shouty", version: "1.2.3" },
    ...{ clock: SYSTEM_CLOCK, metrics: undefined },
    ...parts,
  });
}

/** A carrier with small bounds. */
export async function startCarrier(
  answer: AnswerOf,
  event: () => unknown,
  bounds: Partial<Bounds>,
): Promise<{ addr: Deno.Addr } & AsyncDisposable> {
  const all = { ...BOUNDS, ...bounds };
  const carrier = await Carrier.make(answer, new Streams(event, SYSTEM_CLOCK, all), SYSTEM_CLOCK, all);
  const addr = await bind(carrier.server, { hostname: "127.0.0.1", port: 0 }, false);
  return { addr, [Symbol.asyncDispose]: () => carrier.close() };
}

/** Connects to an address of any kind. */
export function connectTo(addr: Deno.Addr): Promise<Deno.Conn> {
  if ("path" in addr) return Deno.connect({ transport: "unix", path: addr.path! });
  const { hostname, port } = addr as Deno.NetAddr;
  return Deno.connect({ hostname, port });
}

/** Sends one request on a connection of its own; returns the answer. */
export async function ask(addr: Deno.Addr, what: string, options: AskOptions = {}): Promise<Answer> {
  const { headers = {}, body, host = hostOf(addr), token } = options;
  const all: Record<string, string> = {
    ...(host === "" ? {} : { Host: host }),
    Connection: "close",
    ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    ...(body === undefined ? {} : { "Content-Length": `${new TextEncoder().encode(body).length}` }),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const version = host === "" ? "1.0" : "1.1";
  return parse(await send(addr, `${what} HTTP/${version}\r\n${lines}\r\n${body ?? ""}`));
}

/** Sends text, and returns everything that comes back until the port ends the connection. */
export async function send(addr: Deno.Addr, text: string): Promise<string> {
  using conn = await connectTo(addr);
  await conn.write(new TextEncoder().encode(text));
  return await readAll(conn);
}

/** Reads until the peer ends the connection, in whatever way. */
export async function readAll(conn: Deno.Conn): Promise<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(65_536);
  let text = "";
  try {
    for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) {
      text += decoder.decode(buffer.subarray(0, count), { stream: true });
    }
  } catch {
    // A reset ends the connection, too.
  }
  return text;
}

/** The parts of an answer. */
export function parse(text: string): Answer {
  const [head, ...rest] = text.split("\r\n\r\n");
  const [first, ...lines] = head.split("\r\n");
  const pairs = lines.map((line) => line.split(/: (.*)/, 2) as [string, string]);
  return { status: Number(first.split(" ")[1]), headers: new Headers(pairs), body: rest.join("\r\n\r\n") };
}

function hostOf(addr: Deno.Addr): string {
  if (!("hostname" in addr)) return "localhost";
  return `${addr.hostname.includes(":") ? `[${addr.hostname}]` : addr.hostname}:${addr.port}`;
}
