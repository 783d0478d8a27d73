/**
 * Compares what a server did with what the oracle says.
 *
 * @module
 */

import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import type { ClosedEvent, CloseReason, Framing, ServerEvent } from "@x/shouty";
import { clientOf } from "../../../internal/admission/cidr.ts";
import { BAD_REQUEST, RequestLine, TLS_ALERT, TlsRecord } from "../../../internal/lines/misdirected.ts";
import { type Cut, cutAll } from "../../../tests/kit/framing/framing_oracle.ts";
import { BAIT } from "../scenario/handlers.ts";
import { AT_BOUNDARY, BREACHES, endOf, latin1, rulesOf, wordFor } from "./rules.ts";
import type { Scenario } from "../scenario/scenario.ts";
import type { Entry } from "../scenario/script.ts";
import type { Served } from "./output_verdict.ts";
import { checkScript } from "./script_verdict.ts";
import type { WatchedTransport } from "../scenario/watched.ts";

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

/** Timeouts that run while no line is unanswered, in a line handler's connection. */
const SILENT: readonly CloseReason[] = ["idle", "first-line-timeout", "line-timeout"];

/** Reasons with which every reply is sent before the connection closes. */
const POLITE: readonly string[] = [
  ...["end", "closed", "handler-error", "starttls-injection"],
  ...BREACHES,
  ...Object.keys(AT_BOUNDARY),
];

/** Time that a handler has after `maxAge`, in milliseconds; if it still works then, its connection is aborted. */
const OVERDUE_MS = 10_000;

/** Checks how each connection was served, and that no limit on connections was exceeded. */
export function checkConnections(
  scenario: Scenario,
  events: ServerEvent[],
  transports: WatchedTransport[],
  logs: Map<Deno.Addr, Entry[]>,
): void {
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
    const { remoteAddr } = event.conn;
    const transport = transports.find((transport) => transport.remoteAddr === remoteAddr)!;
    checkConnection(scenario, event, transport, logs.get(remoteAddr) ?? []);
  }
}

function checkConnection(scenario: Scenario, event: ClosedEvent, transport: WatchedTransport, log: Entry[]): void {
  const { reason, bytesIn, bytesOut } = event;
  const { cut, ended } = transport;
  const recording = log.find(({ recording }) => recording !== undefined)?.recording;
  recording?.checkFirstBytes(transport.input);
  const output = recording?.outputOf(transport.output) ?? transport.output;
  const taken = (recording?.input ?? transport.input).subarray(0, bytesIn);
  const note = `${reason}, having read ${JSON.stringify(latin1(taken).slice(0, 200))}`;
  assertLessOrEqual(bytesOut, output.length, note);
  // A breach is the reason from the start, and what follows it can be cut off. During a handshake, no end is graceful,
  // and neither is the one by the signal of `connect`.
  const polite = isPolite(scenario, event) && !isAborted(scenario, event) &&
    !(cut && (BREACHES.includes(reason) || hasTls(scenario) || scenario.outgoing !== undefined));
  if (polite) assertEquals(bytesOut, output.length, note);
  // Behind STARTTLS, the server does not look for HTTP: a request line is a line.
  const elsewhere = recording === undefined ? redirection(taken, scenario) : undefined;
  if (reason === "misdirected") {
    // A script may have written before; and with a delimiter such as CR, a part of the request was a line.
    const isFirst = scenario.script === undefined && typeof rulesOf(scenario).framing.lineEnd === "string";
    const answer = isFirst ? latin1(output) : latin1(output).slice(-elsewhere!.length);
    return assertEquals(answer, elsewhere, note);
  }
  assert(reason !== "end" || elsewhere === undefined, note);
  if (elsewhere?.startsWith(latin1(output)) && !polite) return;
  const served = { taken, output: latin1(output), wire: latin1(transport.output), ended, polite, log };
  if (scenario.script === undefined) checkReplies(scenario, event, served, cut, note);
  // The answer in the other protocol, behind what the script has written, may be cut off.
  else if (elsewhere === undefined || polite) checkScript(scenario, event, served);
}

/** Checks what a handler without a script has answered, and how many lines. `cut` tells whether that may be cut off. */
function checkReplies(
  scenario: Scenario,
  { reason, lines }: ClosedEvent,
  { taken, output, ended, polite }: Served,
  cut: boolean,
  note: string,
): void {
  const full = cutFor(scenario, taken, true);
  if (reason === "end" || BREACHES.includes(reason)) assertEquals(full.reason, reason, note);
  if (scenario.handler === "closing line" && lines > 0) assert(/closed|handler-error/.test(reason) || !polite, note);
  if (reason === "end") assertEquals(lines, full.lines.filter((line) => line !== null).length, note);
  const open = cutFor(scenario, taken, false);
  // The handler may have ended the connection after its first line; and if the peer has ended its side, its last line needs no end.
  const mayBeWhole = ended || scenario.handler === "quitting conversation" && lines > 0;
  const isWhole = mayBeWhole && output === repliesOf(scenario, full);
  const unfinished = reason in AT_BOUNDARY && open.unfinished && !isWhole;
  if (unfinished) assertGreater(lines, AT_BOUNDARY[reason]!, `${note} ends in mid-line`);
  const silent = SILENT.includes(reason) && !scenario.handler.includes("conversation");
  const owed = repliesOf(scenario, silent || unfinished ? open : full);
  const word = wordFor(scenario, full.reason);
  if (BREACHES.includes(reason) && !cut) assertEquals(output, owed + word, note);
  else if (silent || polite) assertEquals(output, owed, note);
  else {
    const isRight = isBeginning(output, owed + word, reason === "memory", scenario);
    assert(isRight, `${note}: sent ${output}`);
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

/** Whether the signal of `connect`, or a script, may have aborted a connection. */
function isAborted({ outgoing, script, steps }: Scenario, { reason }: ClosedEvent): boolean {
  const bySignal = outgoing === "call" && steps.some(({ action }) => action.do === "shutdown");
  const byScript = script?.steps.some((step) => step.do === "tls" && step.meanwhile.includes("abort"));
  return reason === "closed" && (bySignal || byScript === true);
}

/** Whether a script begins TLS. */
function hasTls({ script }: Scenario): boolean {
  return script?.steps.some((step) => step.do === "tls") ?? false;
}

function cutFor(scenario: Scenario, taken: Uint8Array, ended: boolean): Cut {
  return cutAll(taken, rulesOf(scenario), scenario.options.maxConnectionBytes ?? Infinity, ended);
}

/**
 * What the peer gets for these lines, one byte per character: the handler's replies, up to the one after which it
 * closes the connection or throws, and a word for each line that is discarded.
 */
function repliesOf(scenario: Scenario, { lines }: Cut): string {
  const { handler } = scenario;
  const { framing } = rulesOf(scenario);
  const end = handler.includes("conversation") ? "\n" : endOf(framing);
  let replies = "";
  for (const line of lines) {
    if (line === null) replies += wordFor(scenario, "line-too-long");
    else if (/throwing|rejecting/.test(handler) && line.text === BAIT) break;
    else {
      const reply = encode(line.text.toUpperCase(), framing);
      // The handler's write throws, and so does the handler if it awaits the write.
      if (reply === undefined && handler !== "impatient conversation") break;
      if (reply !== undefined) replies += reply + end;
      if (/closing|quitting/.test(handler)) break;
    }
  }
  return replies;
}

/** Encodes text, one byte per character; undefined if the encoding does not have all of it. */
function encode(text: string, { encoding }: Framing): string | undefined {
  if (encoding === "utf-8") return latin1(new TextEncoder().encode(text));
  return /^[\0-\xff]*$/.test(text) ? text : undefined;
}

/** Whether output is a beginning of the replies, followed by the memory limit's error line if that closed the connection. */
function isBeginning(sent: string, replies: string, givesWay: boolean, scenario: Scenario): boolean {
  if (replies.startsWith(sent)) return true;
  if (!givesWay) return false;
  let same = 0;
  while (same < sent.length && sent[same] === replies[same]) same++;
  // The error line may begin with the same characters as the next reply.
  const starts = Array.from({ length: same + 1 }, (_, i) => i);
  const word = `error: too much unfinished input${endOf(rulesOf(scenario).framing)}`;
  return starts.some((start) => word.startsWith(sent.slice(start)));
}
