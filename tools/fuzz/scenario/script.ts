/**
 * Scripts: what a handler does, reads of every kind in any order, and what it notes of each.
 *
 * @module
 */

import type { CloseReason, ConnOptions, LineEnd } from "@x/shouty";
import { anyFraming, DELIMITERS, fc, type PlainFraming } from "../../../tests/kit/property.ts";
import { anyTlsStep, type Recording, type TlsStep } from "./upgrade.ts";

/** How long a read waits: for a time, or until its signal aborts after a number of microtasks. */
export interface Patience {
  timeout?: number;
  microtasks?: number;
}

/** The limits that a script changes. */
export type ScriptLimits = Pick<
  ConnOptions,
  "maxLineBytes" | "idleTimeout" | "lineTimeout" | "minBytesPerSecond" | "maxLinesPerSecond" | "maxBytesPerSecond"
>;

/** What every read of bytes may have. */
export interface BytesRead {
  maxBytes?: number | undefined;
  boundary?: boolean | undefined;
  patience?: Patience | undefined;
}

/** Reads up to a delimiter, or up to the first of two. */
export type UntilStep =
  & { do: "until"; delimiter: string; other?: string | undefined; keepDelimiter?: boolean | undefined }
  & BytesRead;

/** How a stream is cancelled: a number of microtasks after one more read has begun, or without another read. */
export interface Cancel {
  microtasks: number | null;
}

/** What one step of a script does. */
export type ScriptStep =
  | { do: "line"; boundary?: boolean | undefined; patience?: Patience | undefined }
  | { do: "lines"; count: number }
  | { do: "batch" }
  | { do: "exactly"; count: number } & BytesRead
  | UntilStep
  | { do: "stream"; count: number; blocks: number; cancel?: Cancel | undefined }
  | { do: "readable"; blocks: number; cancel?: Cancel | undefined }
  | { do: "framing"; framing: Partial<PlainFraming> }
  | { do: "limits"; limits: ScriptLimits }
  | { do: "wait" }
  | { do: "flush"; isAwaited: boolean }
  | TlsStep;

/** What a handler does; it begins anew at the end of its steps. */
export interface Script {
  steps: ScriptStep[];
  /** Whether the handler throws what a read throws. */
  strict: boolean;
}

/** What one step has got. */
export interface Entry {
  readonly step: ScriptStep;
  lines: string[];
  /** Bytes, one per character. */
  bytes: string;
  /** How the step ended, if not with all that it wanted. */
  end:
    | "null"
    | "done"
    | "cancelled"
    | "UnexpectedEof"
    | "LimitError"
    | "TimedOut"
    | "Aborted"
    | "Closed"
    | "Refused"
    | undefined;
  lineEnd: LineEnd | undefined;
  ending: CloseReason | undefined;
  /** The handshake that a step has begun. */
  recording?: Recording;
}

const anyPatience: fc.Arbitrary<Patience | undefined> = fc.oneof(
  { weight: 3, arbitrary: fc.constant(undefined) },
  { weight: 1, arbitrary: fc.constantFrom(1, 50, 2000, Infinity).map((timeout) => ({ timeout })) },
  { weight: 1, arbitrary: fc.nat(12).map((microtasks) => ({ microtasks })) },
);

const anyCount = fc.oneof(fc.nat(6), fc.nat(6), fc.constantFrom(255, 300, 5000));
const anyBytesRead = {
  maxBytes: fc.constantFrom(undefined, undefined, 1, 3, 300),
  boundary: fc.constantFrom(undefined, undefined, true),
  patience: anyPatience,
};
const anyCancel = fc.option(fc.record({ microtasks: fc.oneof(fc.constant(null), fc.nat(12)) }), { nil: undefined });

const anyDelimiter = fc.constantFrom<string>(...DELIMITERS, "\n", "\r\n", "a", "aaab");

const anyStep: fc.Arbitrary<ScriptStep> = fc.oneof(
  fc.record({
    do: fc.constant("line" as const),
    boundary: fc.constantFrom(undefined, undefined, false, true),
    patience: anyPatience,
  }),
  fc.record({ do: fc.constant("lines" as const), count: fc.integer({ min: 1, max: 3 }) }),
  fc.constant({ do: "batch" as const }),
  fc.record({ do: fc.constant("exactly" as const), count: anyCount, ...anyBytesRead }),
  fc.record({
    do: fc.constant("until" as const),
    delimiter: anyDelimiter,
    other: fc.option(anyDelimiter, { nil: undefined }),
    keepDelimiter: fc.constantFrom(undefined, true),
    ...anyBytesRead,
  }),
  fc.record({
    do: fc.constant("stream" as const),
    count: anyCount,
    blocks: fc.nat(2),
    cancel: anyCancel,
  }),
  fc.record({
    do: fc.constant("readable" as const),
    blocks: fc.nat(3),
    cancel: anyCancel,
  }),
  fc.record({ do: fc.constant("framing" as const), framing: fc.oneof(anyFraming, fc.constant({})) }),
  fc.record({
    do: fc.constant("limits" as const),
    limits: fc.oneof(
      fc.record({ maxLineBytes: fc.constantFrom(1, 4, 12, 255, 300, 70_000) }),
      fc.record({ idleTimeout: fc.constantFrom(1, 500), lineTimeout: fc.constantFrom(1, 500) }),
      fc.record({ maxLinesPerSecond: fc.constantFrom(1, 20) }),
      fc.record({ minBytesPerSecond: fc.constantFrom(0, 100_000), maxBytesPerSecond: fc.constantFrom(100, 5000) }),
    ),
  }),
  fc.constant({ do: "wait" as const }),
  fc.record({ do: fc.constant("flush" as const), isAwaited: fc.boolean() }),
);

const isStrict = fc.constantFrom(false, false, false, true);

/** Any script that begins no TLS. */
export const anyScript: fc.Arbitrary<Script> = fc.record({
  steps: fc.array(anyStep, { minLength: 1, maxLength: 6 }),
  strict: isStrict,
});

const reading = fc.oneof(fc.constant({ do: "line" as const }), anyStep);

/** Any script that begins TLS; mostly behind a line, as protocols do. */
export const anyUpgradingScript: fc.Arbitrary<Script> = fc.record({
  steps: fc.tuple(
    fc.array(reading, { maxLength: 2 }),
    anyTlsStep,
    fc.array(fc.oneof({ weight: 6, arbitrary: reading }, { weight: 1, arbitrary: anyTlsStep }), { maxLength: 3 }),
  ).map(([first, tls, rest]) => [...first, tls, ...rest]),
  strict: isStrict,
});

/** The delimiters of a step, one character per byte. */
export function delimitersOf({ delimiter, other }: UntilStep): string[] {
  return other === undefined ? [delimiter] : [delimiter, other];
}
