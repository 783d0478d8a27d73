/**
 * Compares what a connection has sent with what the handler of a script has written.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { ClosedEvent } from "@x/shouty";
import { DELIMITERS } from "../../../tests/kit/property.ts";
import { BREACHES, BROADCAST } from "./rules.ts";
import type { Scenario } from "../scenario/scenario.ts";
import type { Entry } from "../scenario/script.ts";
import { type Recording, SECRET, type TlsStep } from "../scenario/upgrade.ts";
import { hasClosed, wordsAround } from "../scenario/words.ts";

/** What is known of one connection. */
export interface Served {
  /** The bytes that the server has read, and whether it has read their end. */
  taken: Uint8Array;
  ended: boolean;
  /** The bytes that it has written, one per character. */
  output: string;
  /** The bytes that have left, one per character: hidden where they have left under TLS. */
  wire: string;
  /** Whether everything that the handler wrote was to be sent. */
  polite: boolean;
  /** What the script has got. */
  log: Entry[];
}

/** What may end a line of the server's own. */
const LINE_ENDS: readonly string[] = ["\n", "\r\n", ...DELIMITERS];

/** Checks why TLS has not begun, and that nothing has left in plain text that was written after the call. */
export function checkUpgrades({ faults, steps }: Scenario, { reason }: ClosedEvent, { log, wire }: Served): void {
  for (const [i, { step, end }] of log.entries()) {
    if (step.do === "tls" && end !== "Refused") assert(!wire.includes(`<${i} ${SECRET}>`), `Secret ${i} in plain text`);
  }
  const failed = log.find(({ end }) => end === "Closed");
  if (reason === "starttls-injection") assert(failed !== undefined && failed.recording === undefined, "No injection");
  if (reason !== "tls-handshake") return;
  assert(failed !== undefined, "No handshake has failed");
  const isGone = steps.some(({ action }) => action.do === "close" || action.do === "reset");
  const isFaulty = faults.fail !== null || faults.writeBytes.includes(0);
  const isLate = (failed.step as TlsStep).handshakeTimeout < Infinity;
  assert(failed.recording?.hasHello === false || isGone || isFaulty || isLate, "The handshake was to succeed");
}

/** Where the words of a script end in the output. */
class Words {
  readonly #output: string;
  /** The positions up to which the output may be explained, each with the number of the server's own lines before it. */
  places: Map<number, number> = new Map([[0, 0]]);

  constructor(output: string) {
    this.#output = output;
  }

  /** Looks for a word; returns how the output goes on. */
  find(word: string): "found" | "cut" | "missing" {
    const next = new Map<number, number>();
    let isCut = false;
    for (const [at, count] of withOwnLines(this.#output, this.places)) {
      if (this.#output.startsWith(word, at)) next.set(at + word.length, count);
      else isCut ||= word.startsWith(this.#output.slice(at));
    }
    if (next.size > 0) this.places = next;
    return next.size > 0 ? "found" : isCut ? "cut" : "missing";
  }

  /** Leaves the positions at which TLS can have begun. */
  switchAt({ plain }: Recording): void {
    const at = plain!.output.length;
    const count = withOwnLines(this.#output, this.places).get(at);
    assert(count !== undefined, `TLS began at ${at} of ${this.#output}`);
    this.places = new Map([[at, count]]);
  }
}

/**
 * Checks that the peer was told of each step, and of the lines that were discarded; undefined for a peer that is told of
 * none.
 */
export function checkOutput(event: ClosedEvent, served: Served, discarded: number | undefined): void {
  const words = new Words(served.output);
  if (!findWords(words, event, served)) return;
  const { reason } = event;
  const { output, log, polite } = served;
  const ends = withOwnLines(output, words.places);
  const isCut = !polite && [...ends.keys()].some((at) => /^([e*][^<]*)?$/.test(output.slice(at)));
  assert(isCut || ends.has(output.length), `${reason}: the output ${output} is not that of the steps`);
  const own = ends.get(output.length) ?? 0;
  // A server is told nothing.
  if (discarded === undefined) return assertEquals(own, 0, "Own lines");
  const isBreach = BREACHES.includes(reason);
  const least = discarded + (isBreach && !log.some(hasClosed) ? 1 : 0);
  if (polite) assertEquals(own >= least && own <= discarded + (isBreach ? 2 : 1), true, `${own} own lines`);
}

/** Looks for all that the handler has written, in order. Returns whether something else may follow. */
function findWords(words: Words, { reason }: ClosedEvent, { output, log, polite }: Served): boolean {
  const lastSwitch = log.findLastIndex(({ recording }) => recording !== undefined);
  const find = (texts: string[], isOwed: boolean) => {
    for (const text of texts) {
      const found = words.find(text);
      assert(found === "found" || !isOwed, `${reason}: ${text} is missing in ${output}`);
      if (found !== "found") return found;
    }
    return "found";
  };
  for (const [i, entry] of log.entries()) {
    const { before, behind } = wordsAround(i, entry);
    // What was written before TLS began was sent.
    let found = find(before, polite || i <= lastSwitch);
    if (found === "found" && entry.recording !== undefined) words.switchAt(entry.recording);
    if (found === "found") found = find(behind, polite || i < lastSwitch);
    if (found !== "found") return found === "missing";
    if (hasClosed(entry)) break;
  }
  return true;
}

/** Adds the positions behind the server's own lines. */
function withOwnLines(output: string, places: Map<number, number>): Map<number, number> {
  const all = new Map(places);
  for (const [at, count] of all) {
    if (output.startsWith(BROADCAST, at)) all.set(at + BROADCAST.length, count);
    const word = /^error: [ a-z0-9]+/.exec(output.slice(at))?.[0];
    if (word === undefined) continue;
    for (const end of LINE_ENDS) {
      for (let length = word.length; length > 7; length--) {
        if (output.startsWith(end, at + length)) all.set(at + length + end.length, count + 1);
      }
    }
  }
  return all;
}
