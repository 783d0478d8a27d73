/**
 * Compares what a server did with what the oracle says.
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

/** How a client's connection ended. */
export interface ClientEnd {
  /** Whether the client read from the start. */
  readonly eager: boolean;
  /** Whether the client closed or reset the connection. */
  readonly gone: boolean;
  /** Whether one of the client's reads failed. */
  readonly lost: boolean;
  readonly received: Uint8Array[];
}

const BREACHES: readonly CloseReason[] = ["line-too-long", "byte-limit"];

/**
 * Reasons with which a connection ends at a line's end, and the number of lines after which it may end within one: a peer
 * that starts each line together with the end of the last never is at a line's end.
 */
const AT_BOUNDARY: Readonly<Partial<Record<CloseReason, number>>> = { "max-age": 8, "max-lines": 8, "drained": 64 };

/** Timeouts that run while no line is unanswered, in a line handler's connection. */
const SILENT: readonly CloseReason[] = ["idle", "first-line-timeout", "line-timeout"];

/** Reasons with which every reply is sent before the connection closes. */
const POLITE: readonly string[] = ["end", "closed", "handler-error", ...BREACHES, ...Object.keys(AT_BOUNDARY)];

/** Time that a handler has after `maxAge`, in milliseconds; if it still works then, its connection is aborted. */
const OVERDUE_MS = 10_000;

/** Checks how each connection was served, and that no limit on connections was exceeded. */
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
    assert(deny === undefined || !hostname.startsWith("10."), "A denied address was accepted");
    if (event.type === "accepted") continue;
    checkConnection(scenario, event, transports.find(({ remoteAddr }) => remoteAddr === event.conn.remoteAddr)!);
  }
}

function checkConnection(scenario: Scenario, event: ClosedEvent, transport: WatchedTransport): void {
  const { reason, bytesIn, bytesOut, lines } = event;
  const { output, cut } = transport;
  const taken = transport.input.subarray(0, bytesIn);
  const note = `${reason}, having read ${JSON.stringify(latin1(taken).slice(0, 200))}`;
  assertLessOrEqual(bytesOut, output.length, note);
  // A breach is the reason from the start, and what follows it can be cut off.
  const polite = isPolite(scenario, event) && !(cut && BREACHES.includes(reason));
  if (polite) assertEquals(bytesOut, output.length, note);
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
  if (BREACHES.includes(reason) && !cut) assertEquals(decode(output), owed + errorLine(taken, scenario), note);
  else if (silent || polite) assertEquals(decode(output), owed, note);
  else {
    const all = owed + errorLine(taken, scenario);
    const isRight = elsewhere?.startsWith(latin1(output)) || isBeginning(output, all, reason === "memory");
    assert(isRight, `${note}: sent ${decode(output)}`);
  }
}

/** Checks what a client received of the server's output. */
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
  const polite = end !== undefined && isPolite(scenario, end) && !transport.cut;
  const isOwedAll = client.eager && !client.gone && polite && fail === null;
  if (isOwedAll || !client.gone && !client.lost) assertEquals(received, sent, "What was sent comes");
}

/** Whether every reply is sent before the connection closes. */
function isPolite({ options, luck }: Scenario, { reason, durationMs }: ClosedEvent): boolean {
  // The clock can be far ahead of a handler that waits for the event loop before each reply.
  const isOverdue = durationMs >= (0.9 + 0.2 * luck) * (options.maxAge ?? Infinity) + OVERDUE_MS;
  return POLITE.includes(reason) && !(reason === "max-age" && isOverdue);
}

/** The answer to a client that speaks HTTP or TLS; `undefined` for any other client. */
function redirection(taken: Uint8Array, { options }: Scenario): string | undefined {
  if (!options.answerMisdirected) return undefined;
  const is = (look: TlsRecord | RequestLine) =>
    Array.from(taken, (byte) => look.take(byte)).find((answer) => answer !== undefined);
  return is(new TlsRecord()) ? latin1(TLS_ALERT) : is(new RequestLine()) ? BAD_REQUEST : undefined;
}

/** The lines of the input; a last one without a line end counts only once the input has ended. */
function completeLines({ lines, reason }: Answer, taken: Uint8Array): Uint8Array[] {
  return reason === "end" && taken.length > 0 && taken.at(-1) !== LF ? lines.slice(0, -1) : lines;
}

/** The handler's replies to these lines, up to the one after which it closes the connection or throws. */
function repliesOf({ handler }: Scenario, lines: Uint8Array[]): string {
  let texts = lines.map(decode);
  const bait = texts.indexOf(BAIT);
  if (/throwing|rejecting/.test(handler) && bait >= 0) texts = texts.slice(0, bait);
  if (/closing|quitting/.test(handler)) texts = texts.slice(0, 1);
  return texts.map((text) => `${text.toUpperCase()}\n`).join("");
}

/** The error line at the end of the oracle's output, behind the replies. */
function errorLine(taken: Uint8Array, { options }: Scenario): string {
  const { maxLineBytes = 65_536, maxConnectionBytes = Infinity } = options;
  return /error: .*\n$/.exec(shouted(taken, { maxLineBytes, maxConnectionBytes }))?.[0] ?? "";
}

/** Whether output is a beginning of the replies, followed by the memory limit's error line if that closed the connection. */
function isBeginning(output: Uint8Array, owed: string, givesWay: boolean): boolean {
  const sent = latin1(output);
  const replies = latin1(new TextEncoder().encode(owed));
  if (replies.startsWith(sent)) return true;
  if (!givesWay) return false;
  let same = 0;
  while (same < sent.length && sent[same] === replies[same]) same++;
  // The error line may begin with the same characters as the next reply.
  const starts = Array.from({ length: same + 1 }, (_, i) => i);
  return starts.some((start) => "error: too much unfinished input\n".startsWith(sent.slice(start)));
}

function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
