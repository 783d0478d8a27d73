/**
 * Compares what a script has got with what the oracle says.
 *
 * @module
 */

import { assert, assertEquals, assertGreater } from "@std/assert";
import type { ClosedEvent, CloseReason, LineEnd } from "@x/shouty";
import { nextLine, type Rules } from "../../../tests/kit/framing/framing_oracle.ts";
import { framingOf } from "../../../tests/kit/property.ts";
import { TlsRecord } from "../../../internal/lines/misdirected.ts";
import { checkOutput, checkUpgrades, type Served } from "./output_verdict.ts";
import { AT_BOUNDARY, BREACHES, latin1, rulesOf } from "./rules.ts";
import type { Scenario, Step } from "../scenario/scenario.ts";
import { delimitersOf, type Entry, type ScriptStep, type UntilStep } from "../scenario/script.ts";
import { hasClosed } from "../scenario/words.ts";

/** Checks that a script has got what the oracle says, that its peer was told, and why the connection ended. */
export function checkScript(scenario: Scenario, event: ClosedEvent, served: Served): void {
  const reading = new Reading(scenario, event, served);
  for (const [i, entry] of served.log.entries()) {
    try {
      reading.check(entry);
    } catch (error) {
      throw new Error(`${event.reason}: step ${i} got ${JSON.stringify(entry)}`, { cause: error });
    }
  }
  checkReason(scenario, event, served);
  checkUpgrades(scenario, event, served);
  // After a breach the handler may write for a second, unless the server stops before that. So may the caller of `connect`
  // where a handler would have to finish.
  const isCutOff = BREACHES.includes(event.reason) || scenario.outgoing === "call" && event.reason in AT_BOUNDARY;
  const complete = served.polite && (!isCutOff || isPrompt(scenario));
  checkOutput(event, { ...served, polite: complete }, scenario.outgoing === undefined ? reading.discarded : undefined);
}

/** Whether neither the handler nor a peer nor a shutdown makes a write wait or fail. */
function isPrompt({ script, steps, bufferBytes }: Scenario): boolean {
  const isSlow = ({ action }: Step) => action.do === "shutdown" || action.do === "connect" && !action.reads;
  return bufferBytes > 1000 && !steps.some(isSlow) && !script!.steps.some((step) => step.do === "wait");
}

/** Reads the same as a script did, by the oracle. */
class Reading {
  readonly #served: Served;
  readonly #event: ClosedEvent;
  readonly #input: Uint8Array;
  /** Whether more than `maxConnectionBytes` have come. */
  readonly #isOver: boolean;
  #rules: Rules;
  #at = 0;
  /** The number of bytes that were to be skipped and have not come. */
  #missing = 0;
  /** Whether the rest of a cancelled stream may not have come yet. */
  #skips = false;
  #lineEnd: LineEnd | undefined;
  /** Why the input was cut off, so that the handler gets nothing more. */
  #stopped: CloseReason | undefined;
  /** Why the input had ended before the step. */
  #endedBefore: CloseReason | undefined;
  /** Whether `readable` has been read, and whether it was cancelled. */
  #readable = false;
  #cancelled = false;
  #encrypted = false;
  readonly #outgoing: boolean;
  readonly #isCall: boolean;
  #lines = 0;
  /** The number of lines that were too long and discarded. */
  discarded = 0;

  constructor(scenario: Scenario, event: ClosedEvent, served: Served) {
    const { maxConnectionBytes = Infinity } = scenario.options;
    this.#served = served;
    this.#event = event;
    this.#input = served.taken.subarray(0, Math.min(served.taken.length, maxConnectionBytes));
    this.#isOver = this.#input.length < served.taken.length;
    this.#rules = rulesOf(scenario);
    this.#outgoing = scenario.outgoing !== undefined;
    this.#isCall = scenario.outgoing === "call";
  }

  get #left(): number {
    return this.#input.length - this.#at;
  }

  check(entry: Entry): void {
    const { step, lines, bytes, lineEnd, end } = entry;
    this.#readable ||= step.do === "readable";
    const hasGot = lines.length > 0 || bytes.length > 0;
    assert(!hasGot || this.#stopped === undefined, `Input comes after ${this.#stopped}`);
    for (const [i, text] of lines.entries()) {
      const isLast = i === lines.length - 1;
      this.#line(text, isLast && lineEnd === "none");
      if (isLast && end === undefined) assertEquals(lineEnd, this.#lineEnd, "lastLineEnd");
    }
    assertEquals(bytes, latin1(this.#input.subarray(this.#at, this.#at + bytes.length)));
    if (end !== "null" || step.do === "until") assertEquals(lineEnd, this.#lineEnd, "lastLineEnd");
    if (step.do === "tls") return this.#tls(entry);
    this.#skips = step.do === "stream" && end === "cancelled" || this.#skips && !hasGot;
    this.#at += step.do === "stream" && end === "cancelled" ? step.count : bytes.length;
    // The rest of a cancelled stream may never have come.
    if (this.#left < 0) [this.#at, this.#missing] = [this.#input.length, -this.#left];
    if (step.do === "until" && end === undefined) this.#at += this.#delimited(bytes, step);
    if (end === undefined) this.#whole(entry);
    else this.#ended(entry);
    this.#endedBefore = entry.ending;
    if (step.do === "framing") {
      this.#rules = { ...this.#rules, framing: { ...this.#rules.framing, ...framingOf(step.framing) } };
    } else if (step.do === "limits") {
      this.#rules = { ...this.#rules, maxLineBytes: step.limits.maxLineBytes ?? this.#rules.maxLineBytes };
    }
  }

  /** Checks that no byte is lost or read twice where TLS begins. */
  #tls({ end, ending, recording }: Entry): void {
    if (end === "Refused") return assert(this.#encrypted || this.#skips || this.#outgoing, "TLS could begin");
    assert(!this.#outgoing, "TLS has begun at the side of the client");
    if (recording !== undefined) assertEquals(this.#at, recording.plain!.input.length, "TLS begins elsewhere");
    if (end === undefined) {
      assert(recording?.succeeded && !this.#encrypted, "There was no handshake");
      this.#encrypted = true;
      this.#at += recording.firstBytes.length;
      return;
    }
    // The peer may have ended its side before, or the input where the handler was to finish; then the handler may abort.
    const hadEnded = ending === "end" || ending! in AT_BOUNDARY && !this.#served.polite;
    if (!hadEnded) assertEquals(ending, this.#event.reason);
    this.#stopped = ending;
    const record = new TlsRecord();
    const isTls = this.#input.subarray(this.#at).every((byte) => record.take(byte) !== false);
    if (ending === "starttls-injection") assert(!isTls, "There was no plain text");
  }

  #line(text: string, mayBeCutOff: boolean): void {
    let next = nextLine(this.#input, this.#at, this.#rules, false);
    if (next.kind === "more" && mayBeCutOff && this.#served.ended && !this.#isOver) {
      next = nextLine(this.#input, this.#at, this.#rules, true);
    }
    assertEquals([next.kind, next.text], ["line", text]);
    this.discarded += next.discarded;
    [this.#at, this.#lineEnd] = [next.to, next.lineEnd];
    this.#lines++;
  }

  /** Checks that the bytes end at the first delimiter; returns the length of what follows of it. */
  #delimited(bytes: string, step: UntilStep): number {
    const first = firstOf(bytes + latin1(this.#input.subarray(this.#at)), step);
    assert(first !== undefined, "There is no delimiter");
    assertEquals(bytes.length, step.keepDelimiter ? first.at + first.length : first.at, "Not the first");
    assert(first.at <= (step.maxBytes ?? Infinity), "More than maxBytes");
    return step.keepDelimiter ? 0 : first.length;
  }

  /** Checks the size of what a step has got that went well. */
  #whole({ step, bytes, lines }: Entry): void {
    if (step.do === "line") assertEquals(lines.length, 1);
    else if (step.do === "lines") assertEquals(lines.length, step.count);
    else if (step.do === "batch") assertGreater(lines.length, 0);
    else if (step.do === "exactly" || step.do === "stream") assertEquals(bytes.length, step.count);
    if (step.do === "exactly") assert(bytes.length <= (step.maxBytes ?? Infinity), "More than maxBytes");
  }

  /** Checks why a step ended early. */
  #ended(entry: Entry): void {
    const { step, end, ending, bytes } = entry;
    if (end === "LimitError") return assert(this.#isPastLimit(step), "maxBytes was not passed");
    if (end === "TimedOut" || end === "Aborted") {
      const { timeout = Infinity, microtasks = Infinity } = "patience" in step ? step.patience ?? {} : {};
      return assert((end === "TimedOut" ? timeout : microtasks) < Infinity, "The read was to wait");
    }
    if (end === "cancelled") return void (step.do === "readable" && (this.#cancelled = true));
    if (end === "done" && this.#cancelled) return assertEquals(bytes, "");
    assert(ending !== undefined, "There is an end without a reason");
    if (this.#stopped !== undefined) return;
    try {
      this.#inputEnded(entry, ending);
    } catch (error) {
      // An abort has dropped what had come; and so has `readable`, which gives only whole lines before the limit.
      const mayDrop = !this.#served.polite || ending === "byte-limit" && this.#isOver && this.#readable;
      if (!mayDrop) throw error;
      this.#stopped = ending;
    }
  }

  /** Checks that there was no more for a step. */
  #inputEnded({ step, end, lineEnd }: Entry, ending: CloseReason): void {
    const isCut = step.do === "line" && step.boundary === false && ending in AT_BOUNDARY;
    if (isCut) assertEquals(this.#endedBefore, ending, "The input ends within a message");
    if (step.do === "line" || step.do === "lines" || step.do === "batch") return this.#linesEnded(ending, lineEnd);
    const isGentle = ending === "end" || ending in AT_BOUNDARY;
    // The caller of `connect` does not return as a handler does: there, such a limit stops the input once a read meets it.
    if (!isGentle || ending !== "end" && this.#isCall) this.#stopped = ending;
    if (ending === "byte-limit") assert(this.#isOver, "The limit was not passed");
    if (ending === "end") assert(this.#served.ended && !this.#isOver, "The input has not ended");
    if (!isGentle && ending !== "byte-limit") return;
    if (end === "null" || end === "done" && isGentle) assertEquals(this.#left, 0);
    if (step.do === "exactly") assert(this.#left - this.#missing < step.count, `All ${step.count} bytes have come`);
    if (step.do === "stream") assert(this.#left === 0 || this.#isOver, "Bytes are left");
    if (step.do === "until" && end === "UnexpectedEof") {
      assertEquals(firstOf(latin1(this.#input.subarray(this.#at)), step), undefined, "The delimiter has come");
    }
  }

  #linesEnded(ending: CloseReason, lineEnd: LineEnd | undefined): void {
    const isEnded = (ending === "end" || ending === "unterminated" || this.#served.ended) && !this.#isOver;
    const next = nextLine(this.#input, this.#at, this.#rules, isEnded);
    if (ending === "end") assertEquals([next.kind, lineEnd], ["end", next.lineEnd ?? this.#lineEnd]);
    else if (ending === "byte-limit") assertEquals([next.kind, this.#isOver], ["more", true]);
    else if (BREACHES.includes(ending)) assertEquals(next.kind, ending);
    else if (ending in AT_BOUNDARY) {
      const { kind, to } = nextLine(this.#input, this.#at, this.#rules, false);
      assertEquals(kind, "more");
      const isWithin = to < this.#input.length;
      if (isWithin) assertGreater(this.#event.lines, AT_BOUNDARY[ending]!, "The input ends in mid-line");
    }
    if (ending !== "end" && !(ending in AT_BOUNDARY)) this.#stopped = ending;
    this.discarded += next.discarded;
  }

  /** Whether a read may not go on, because `maxBytes` have come without its end. */
  #isPastLimit(step: ScriptStep): boolean {
    if (step.do !== "exactly" && step.do !== "until") return false;
    const { maxBytes = 1024 * 1024 } = step;
    if (step.do === "exactly") return step.count > maxBytes;
    const first = firstOf(latin1(this.#input.subarray(this.#at)), step);
    const longest = Math.max(...delimitersOf(step).map(({ length }) => length));
    return (first?.at ?? this.#left - longest + 1) > maxBytes;
  }
}

/** Finds the delimiter of a step that ends first in a text; of two that end together, the longer one. */
function firstOf(text: string, step: UntilStep): { at: number; length: number } | undefined {
  const found = delimitersOf(step).map((one) => ({ at: text.indexOf(one), length: one.length })).filter(({ at }) =>
    at >= 0
  );
  return found.toSorted((a, b) => a.at + a.length - b.at - b.length || a.at - b.at).at(0);
}

/** Checks that the connection ended for the reason that the script has seen, or that it has caused. */
function checkReason({ script, outgoing }: Scenario, { reason }: ClosedEvent, { log, polite }: Served): void {
  // The peer may have ended its side before.
  if (!polite || reason === "starttls-injection" || reason === "closed" && log.some(hasClosed)) return;
  // What a script does not wait for, the caller of `connect` closes.
  if (outgoing === "call" && reason === "closed") return;
  const last = log.at(-1);
  const ending = log.findLast(({ ending }) => ending !== undefined)?.ending;
  const thrown = script!.strict ? last?.end : undefined;
  if (thrown === "TimedOut" || thrown === "Aborted") assert(reason === "handler-error" || reason === ending, reason);
  else if (thrown === "LimitError") assert(reason === "read-too-long" || reason === ending, reason);
  else if (ending !== undefined && thrown === undefined) assertEquals(reason, ending);
  else assert(ending === reason || !["handler-error", ...BREACHES].includes(reason), reason);
}
