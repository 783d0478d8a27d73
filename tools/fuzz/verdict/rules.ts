/**
 * What the verdicts on all kinds of handlers share: the rules by which new connections read, and words of the server.
 *
 * @module
 */

import type { CloseReason, Framing } from "@x/shouty";
import { delimiterOf, type Rules } from "../../../tests/kit/framing/framing_oracle.ts";
import { lastWord } from "../../../tests/kit/framing/oracle.ts";
import { framingOf } from "../../../tests/kit/property.ts";
import type { Scenario } from "../scenario/scenario.ts";

const DEFAULT_FRAMING: Framing = {
  lineEnd: "any",
  encoding: "utf-8",
  invalidText: "replace",
  unterminated: "line",
  onLongLine: "close",
};

/** Reasons that say what is wrong with the input, or with what a read was to take from it. */
export const BREACHES: readonly CloseReason[] = [
  ...["line-too-long", "byte-limit", "read-too-long", "unterminated", "invalid-text"] as const,
];

/**
 * Reasons with which a connection ends at a line's end, and the number of lines after which it may end within one: a peer
 * that starts each line together with the end of the last never is at a line's end.
 */
export const AT_BOUNDARY: Readonly<Partial<Record<CloseReason, number>>> = {
  "max-age": 8,
  "max-lines": 8,
  "drained": 64,
};

/** What a server that runs a script broadcasts. */
export const BROADCAST = "*all*\n";

/** How new connections cut lines. */
export function rulesOf({ options: { framing, maxLineBytes = 65_536 } }: Scenario): Rules {
  return { framing: { ...DEFAULT_FRAMING, ...framingOf(framing ?? {}) }, maxLineBytes };
}

/** The last line for a peer whose input was wrong, one byte per character; empty for any other reason. */
export function wordFor(scenario: Scenario, reason: string, rules: Rules = rulesOf(scenario)): string {
  const { maxConnectionBytes = Infinity } = scenario.options;
  const word = lastWord(reason, { maxLineBytes: rules.maxLineBytes, maxConnectionBytes });
  return word === undefined ? "" : word + endOf(rules.framing);
}

/** What ends a line that the server adds, one byte per character. */
export function endOf(framing: Framing): string {
  return latin1(delimiterOf(framing));
}

/** Bytes as text, one byte per character. */
export function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
