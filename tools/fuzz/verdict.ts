/**
 * Whether what a server did was right, by the oracle.
 *
 * @module
 */

import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import type { ClosedEvent, CloseReason, ServerEvent } from "@x/shouty";
import { LF } from "../../internal/lines/ascii.ts";
import { clientOf } from "../../internal/server/cidr.ts";
import { BAD_REQUEST, RequestLine, TLS_ALERT, TlsRecord } from "../../internal/lines/misdirected.ts";
import { type Answer, answer, shouted } from "../../tests/kit/oracle.ts";
import { BAIT } from "./handlers.ts";
import type { Scenario } from "./scenario.ts";
import type { WatchedTransport } from "./watched.ts";

/** What became of a client. */
export interface ClientEnd {
  /** Whether it read from the first moment on. */
  readonly eager: boolean;
  /** Whether it broke off by itself. */
  readonly gone: boolean;
  /** Whether the server broke off. */
  readonly lost: boolean;
  readonly received: Uint8Array[];
}

const BREACHES: readonly CloseReason[] = ["line-too-long", "byte-limit"];

/** Endings at a line's end, but for a peer that has ended so many lines meanwhile, and begun another each time. */
const AT_BOUNDARY: Readonly<Partial<Record<CloseReason, number>>> = { "max-age": 8, "max-lines": 8, "drained": 64 };

/** The clocks that run while everything has been answered, in a line handler's connection. */
const SILENT: readonly CloseReason[] = ["idle", "first-line-timeout", "line-timeout"];

/** Endings that leave nothing unsaid. */
const POLITE: readonly string[] = ["end", "closed", "handler-error", ...BREACHES, ...Object.keys(AT_BOUNDARY)];

/** Checks how every connection was served, and who was let in. */
export function checkConnections(scenario: Scenario, events: ServerEvent[], transports: WatchedTransport[]): void {
  const { maxConnections = Infinity, maxConnectionsPerIp = Infinity, deny } = scenario.options;
  const active: string[] = [];
  for (const event of events) {
    if (event.type !== "accepted" && event.type !== "closed") continue;
    const { hostname } = event.conn.remoteAddr as Deno.NetAddr;
    const client = clientOf(hostname);
    if (event.type === "accepted") active.push(client);
    else active.splice(active.indexOf(client), 1);
    assertLessOrEqual(active.length, maxConnections);
    assertLessOrEqual(active.filter((name) => name === client).length, maxConnectionsPerIp);
    assert(deny === undefined || !hostname.startsWith("10."), "A denied address was let in");
    if (event.type === "accepted") continue;
    checkConnection(scenario, event, transports.find(({ remoteAddr }) => remoteAddr === event.conn.remoteAddr)!);
  }
}

function checkConnection(scenario: Scenario, event: ClosedEvent, transport: WatchedTransport): void {
  const { reason, bytesIn, bytesOut, lines } = event;
  const { output } = transport;
  const taken = transport.input.subarray(0, bytesIn);
  const note = `${reason}, having read ${JSON.stringify(latin1(taken).slice(0, 200))}`;
  assertLessOrEqual(bytesOut, output.length, note);
  if (POLITE.includes(reason)) assertEquals(bytesOut, output.length, note);
  const elsewhere = redirection(taken, scenario);
  if (reason === "misdirected") return assertEquals(latin1(output), elsewhere, note);
  assert(reason !== "end" || elsewhere === undefined, note);
  const { maxLineBytes = 65_536, maxConnectionBytes = Infinity } = scenario.options;
  const full = answer(taken, { maxLineBytes, maxConnectionBytes });
  if (reason === "end" || BREACHES.includes(reason)) assertEquals(full.reason, reason, note);
  if (reason === "end") assertEquals(lines, full.lines.length, note);
  const unfinished = reason in AT_BOUNDARY && taken.length > 0 && taken.at(-1) !== LF;
  if (unfinished) assertGreater(lines, AT_BOUNDARY[reason]!, `${note} ends in mid-line`);
  const silent = SILENT.includes(reason) && !scenario.handler.includes("conversation");
  const owed = repliesOf(scenario, silent || unfinished ? completeLines(full, taken) : full.lines);
  if (BREACHES.includes(reason)) assertEquals(decode(output), owed + errorLine(taken, scenario), note);
  else if (silent || POLITE.includes(reason)) assertEquals(decode(output), owed, note);
  else {
    const all = owed + errorLine(taken, scenario);
    const isRight = elsewhere?.startsWith(latin1(output)) || isBeginning(output, all, reason === "memory");
    assert(isRight, `${note}: said ${decode(output)}`);
  }
}

/** Checks what came to a client of what the server sent. */
export function checkClient(
  scenario: Scenario,
  client: ClientEnd,
  transport: WatchedTransport,
  end?: ClosedEvent,
): void {
  const received = client.received.map(latin1).join("");
  const sent = latin1(transport.output);
  assert(sent.startsWith(received), `The client got ${received} of ${sent}`);
  const { fail } = scenario.faults;
  const isOwedAll = client.eager && !client.gone && end !== undefined && POLITE.includes(end.reason) && fail === null;
  if (isOwedAll || !client.gone && !client.lost) assertEquals(received, sent, "What was sent comes");
}

/** What a client gets that means another server, if it is one. */
function redirection(taken: Uint8Array, { options }: Scenario): string | undefined {
  if (!options.answerMisdirected) return undefined;
  const is = (look: TlsRecord | RequestLine) =>
    Array.from(taken, (byte) => look.take(byte)).find((answer) => answer !== undefined);
  return is(new TlsRecord()) ? latin1(TLS_ALERT) : is(new RequestLine()) ? BAD_REQUEST : undefined;
}

/** A last line without its end is none while the input is not over. */
function completeLines({ lines, reason }: Answer, taken: Uint8Array): Uint8Array[] {
  return reason === "end" && taken.length > 0 && taken.at(-1) !== LF ? lines.slice(0, -1) : lines;
}

/** What the handler says to these lines, the last of which may be one that it ends with. */
function repliesOf({ handler }: Scenario, lines: Uint8Array[]): string {
  let texts = lines.map(decode);
  const bait = texts.indexOf(BAIT);
  if (/throwing|rejecting/.test(handler) && bait >= 0) texts = texts.slice(0, bait);
  if (/closing|quitting/.test(handler)) texts = texts.slice(0, 1);
  return texts.map((text) => `${text.toUpperCase()}\n`).join("");
}

/** The oracle's whole answer is its replies, then this. */
function errorLine(taken: Uint8Array, { options }: Scenario): string {
  const { maxLineBytes = 65_536, maxConnectionBytes = Infinity } = options;
  return /error: .*\n$/.exec(shouted(taken, { maxLineBytes, maxConnectionBytes }))?.[0] ?? "";
}

/** Whoever gives way is told so, if there is room for it. */
function isBeginning(output: Uint8Array, owed: string, givesWay: boolean): boolean {
  const said = latin1(output);
  const replies = latin1(new TextEncoder().encode(owed));
  if (replies.startsWith(said)) return true;
  if (!givesWay) return false;
  let same = 0;
  while (same < said.length && said[same] === replies[same]) same++;
  // The apology and a reply may begin alike.
  const starts = Array.from({ length: same + 1 }, (_, i) => i);
  return starts.some((start) => "error: too much unfinished input\n".startsWith(said.slice(start)));
}

function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
