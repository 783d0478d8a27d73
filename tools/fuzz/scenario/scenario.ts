/**
 * The cases for whole connections. A case is plain data, so that a failing one can be kept as JSON.
 *
 * @module
 */

import type { ServeOptions } from "@x/shouty";
import { anyFraming, DELIMITERS, fc, type PlainFraming } from "../../../tests/kit/property.ts";
import { OUTGOING, type Outgoing } from "./outgoing.ts";
import { anyScript, anyUpgradingScript, type Script, type ScriptStep } from "./script.ts";

/** What one step does. Each character of a text is one byte. */
export type Action =
  | { do: "connect"; from: number; reads: boolean }
  | { do: "write"; client: number; text: string }
  // The next bytes of the hello that begins TLS, and text before and behind it; behind the whole hello all is hidden.
  | { do: "hello"; client: number; bytes: number; before: string; behind: string }
  | { do: "broadcast" }
  | { do: "end" | "reset" | "close" | "read"; client: number }
  | { do: "advance"; ms: number }
  | { do: "turn" }
  | { do: "shutdown"; drain: "linger" | "finish"; drainTimeout: number };

/** An action, and how many microtasks run after it; `null` runs everything that is ready. */
export interface Step {
  action: Action;
  microtasks: number | null;
}

/** The kinds of handlers. */
export const HANDLERS = [
  "shout",
  "block",
  "bytes",
  "line",
  "async line",
  "slow line",
  "throwing line",
  "rejecting line",
  "closing line",
  "conversation",
  "impatient conversation",
  "quitting conversation",
  "throwing conversation",
  "script",
] as const;

/** See {@linkcode HANDLERS}. */
export type HandlerKind = typeof HANDLERS[number];

/** What a failing call of a transport throws. */
export const ERRORS = ["ConnectionReset", "BrokenPipe", "Error", "string"] as const;

/** Faults of the listener and its transports. Calls are counted from 1 in each connection. */
export interface FaultPlan {
  accepts: ("NotConnected" | "EMFILE")[];
  readBytes: number[];
  writeBytes: number[];
  fail: { method: "read" | "write" | "closeWrite"; call: number; error: typeof ERRORS[number] } | null;
}

/** One case. */
export interface Scenario {
  handler: HandlerKind;
  /** What the handler "script" reads. */
  script?: Script;
  /** How this side opens the connections; without it, it is the server. */
  outgoing?: Outgoing;
  options: Pick<ServeOptions, OptionName> & { framing?: PlainFraming };
  /** The result of `Math.random` during the case. */
  luck: number;
  bufferBytes: number;
  faults: FaultPlan;
  steps: Step[];
  /** Whether the clients neither read nor write any more after the steps, until the server has ended all connections. */
  still?: boolean;
}

type OptionName =
  | ("firstLineTimeout" | "idleTimeout" | "lineTimeout" | "writeTimeout" | "drainTimeout" | "maxAge")
  | ("maxLines" | "maxLinesPerSecond" | "maxBytesPerSecond" | "maxLineBytes" | "maxConnectionBytes")
  | ("maxQueuedBytes" | "maxConnections" | "maxConnectionsPerIp" | "maxBufferedBytes" | "answerMisdirected")
  | ("atCapacity" | "acceptRate" | "acceptRatePerIp" | "deny" | "drain" | "minBytesPerSecond" | "idleOn")
  | ("handlerTimeout" | "halfCloseTimeout" | "independentLines");

const timeout = fc.oneof(fc.constantFrom(1, 50, 500, Infinity), fc.integer({ min: 1, max: 3000 }));

const OPTIONS: { readonly [Name in OptionName]: fc.Arbitrary<Scenario["options"][Name]> } = {
  firstLineTimeout: timeout,
  idleTimeout: timeout,
  lineTimeout: timeout,
  writeTimeout: timeout,
  maxAge: timeout,
  handlerTimeout: timeout,
  // Never off: what a server has sent before its end would wait for the caller of `connect` for ever, as it should.
  halfCloseTimeout: fc.oneof(fc.constantFrom(1, 50, 500), fc.integer({ min: 1, max: 3000 })),
  independentLines: fc.boolean(),
  maxLines: fc.integer({ min: 1, max: 8 }),
  maxLinesPerSecond: fc.constantFrom(0.5, 1, 3, 20),
  maxBytesPerSecond: fc.constantFrom(100, 700, 5000),
  answerMisdirected: fc.boolean(),
  maxLineBytes: fc.constantFrom(1, 2, 5, 12, 255, 256, 257, 700, 70_000),
  maxConnectionBytes: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(600, 3000)),
  maxQueuedBytes: fc.constantFrom(1, 20, 1000),
  maxConnections: fc.integer({ min: 1, max: 3 }),
  atCapacity: fc.constantFrom("reject", "wait"),
  maxConnectionsPerIp: fc.integer({ min: 1, max: 2 }),
  acceptRate: fc.constantFrom(0.5, 1, 10),
  acceptRatePerIp: fc.constantFrom(0.5, 1, 3),
  maxBufferedBytes: fc.constantFrom(1, 4000, 20_000, 140_000),
  deny: fc.constant(["10.0.0.0/8"]),
  drain: fc.constantFrom("linger", "finish"),
  drainTimeout: fc.constantFrom(1, 100, 2500),
  minBytesPerSecond: fc.constantFrom(0, 1, 240, 100_000),
  idleOn: fc.constantFrom("both", "read"),
};

/** Options of a server alone. */
const SERVER_OPTIONS: readonly OptionName[] = [
  ...["answerMisdirected", "maxConnections", "atCapacity", "maxConnectionsPerIp", "acceptRate"] as const,
  ...["acceptRatePerIp", "maxBufferedBytes", "deny"] as const,
];
const CONN_OPTIONS = (Object.keys(OPTIONS) as OptionName[]).filter((name) => !SERVER_OPTIONS.includes(name));

/** Up to five options: with more of them, one hides the effects of another. */
function someOptions(names: readonly OptionName[]): fc.Arbitrary<Scenario["options"]> {
  return fc.tuple(fc.record(OPTIONS), fc.subarray([...names], { maxLength: 5 }), fc.option(anyFraming))
    .map(([options, names, framing]) => ({
      ...Object.fromEntries(names.map((name) => [name, options[name]])),
      ...(framing === null ? {} : { framing }),
    }));
}

/** Text made of lines and parts of lines. */
const anyText: fc.Arbitrary<string> = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom("\n", "\r\n", "\r", "a\n", "bc\r\n", "!\n", "\n\n\n", "hello\n") },
    {
      weight: 3,
      arbitrary: fc.constantFrom("a", "\r", "xyz", "\xc3\x9f", "\xc3", "\xff", "\0", "\xef\xbb\xbf", "\x85"),
    },
    { weight: 2, arbitrary: fc.constantFrom(...DELIMITERS, "|", "ab", "aaab") },
    { weight: 1, arbitrary: fc.constantFrom("GET / HTTP/1.1\r\n", "\x16\x03\x01", "\x16\x03", "PROXY UNKNOWN\r\n") },
    {
      weight: 1,
      arbitrary: fc.constantFrom(253, 254, 255, 256, 257, 1020, 4090, 4094, 4095, 4096, 40_000).map((length) =>
        "y".repeat(length)
      ),
    },
    { weight: 1, arbitrary: fc.constantFrom(20, 400).map((count) => "z\n".repeat(count)) },
  ),
  { minLength: 1, maxLength: 5 },
).map((parts) => parts.join(""));

const client = fc.nat(3);

const ACTIONS = {
  connect: fc.record({ do: fc.constant("connect" as const), from: fc.nat(4), reads: fc.boolean() }),
  write: fc.record({ do: fc.constant("write" as const), client, text: anyText }),
  hello: fc.record({
    do: fc.constant("hello" as const),
    client: fc.constantFrom(0, 0, 0, 1, 2),
    bytes: fc.oneof(fc.constant(6), fc.integer({ min: 1, max: 5 })),
    before: fc.constantFrom("", "", "", "a\n", "b\r\n", "c"),
    behind: fc.oneof({ weight: 3, arbitrary: fc.constant("") }, { weight: 1, arbitrary: anyText }),
  }),
  line: fc.record({
    do: fc.constant("write" as const),
    client: fc.constantFrom(0, 0, 0, 1, 2),
    text: fc.constantFrom("a\n", "bc\r\n", "\n"),
  }),
  broadcast: fc.constant({ do: "broadcast" as const }),
  leave: fc.record({ do: fc.constantFrom("end", "reset", "close", "read"), client }),
  advance: fc.record({ do: fc.constant("advance" as const), ms: fc.constantFrom(1, 49, 50, 500, 2000, 3100) }),
  shutdown: fc.record({
    do: fc.constant("shutdown" as const),
    drain: fc.constantFrom("linger", "linger", "finish"),
    drainTimeout: fc.constantFrom(1, 60, 2500),
  }),
  turn: fc.constant({ do: "turn" as const }),
};

/** Draws actions, each kind with a weight. */
function actions(weights: { readonly [Name in keyof typeof ACTIONS]?: number }): fc.Arbitrary<Action> {
  const names = Object.keys(weights) as (keyof typeof ACTIONS)[];
  return fc.oneof(
    ...names.map((name) => ({ weight: weights[name]!, arbitrary: ACTIONS[name] as fc.Arbitrary<Action> })),
  );
}

const anyAction = actions({ connect: 4, write: 8, leave: 3, advance: 3, shutdown: 1, turn: 1 });

/** Actions around TLS that begins. */
const upgradingAction = actions({
  ...{ connect: 2, write: 3, line: 4, hello: 8, broadcast: 2 },
  ...{ leave: 2, advance: 3, shutdown: 1, turn: 1 },
});

const microtasks = fc.oneof(fc.constant(null), fc.nat(8));

const anyPlan: fc.Arbitrary<FaultPlan> = fc.record({
  accepts: fc.array(fc.constantFrom("NotConnected", "EMFILE"), { maxLength: 2 }),
  readBytes: fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 8 }),
  writeBytes: fc.array(fc.nat(9), { maxLength: 4 }),
  fail: fc.option(fc.record({
    method: fc.constantFrom("read", "write", "closeWrite"),
    call: fc.integer({ min: 1, max: 4 }),
    error: fc.constantFrom(...ERRORS),
  })),
});

const NO_FAULTS: FaultPlan = { accepts: [], readBytes: [], writeBytes: [], fail: null };

/** Steps, of which the first connects a client. */
function stepsOf(action: fc.Arbitrary<Action>): fc.Arbitrary<Step[]> {
  const first = fc.record({ action: fc.constant({ do: "connect" as const, from: 0, reads: true }), microtasks });
  const rest = fc.array(fc.record({ action, microtasks }), { minLength: 1, maxLength: 14 });
  return fc.tuple(first, rest).map(([first, rest]) => [first, ...rest]);
}

const SCRIPT = fc.constant("script" as const);

/** A handler, and what its clients do. */
type Play = Pick<Scenario, "handler" | "script" | "outgoing" | "steps">;

const anyPlay: fc.Arbitrary<Play> = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({ handler: fc.constantFrom(...HANDLERS.slice(0, -1)), steps: stepsOf(anyAction) }),
  },
  { weight: 1, arbitrary: fc.record({ handler: SCRIPT, script: anyScript, steps: stepsOf(anyAction) }) },
);

/** A client that does what the script wants of it: its lines, then the hello, in one write or in pieces. */
const willing: fc.Arbitrary<{ script: Script; first: Action[] }> = fc.record({
  script: anyUpgradingScript,
  cut: fc.integer({ min: 1, max: 6 }),
  together: fc.boolean(),
  behind: fc.oneof(fc.constant(""), anyText),
}).map(({ script, cut, together, behind }) => {
  const lines = "a\n".repeat(script.steps.findIndex((step) => step.do === "tls"));
  const hello = { do: "hello" as const, client: 0, before: "", behind: "" };
  const first: Action[] = [
    { ...hello, bytes: cut, before: together ? lines : "", behind: cut === 6 ? behind : "" },
    ...(cut === 6 ? [] : [{ ...hello, bytes: 6 - cut, behind }]),
  ];
  if (!together && lines !== "") first.unshift({ do: "write", client: 0, text: lines });
  return { script: { ...script, steps: script.steps.map(toLine) }, first };
});

/** Makes the steps before TLS begins read the lines of a willing client. */
function toLine(step: ScriptStep, at: number, steps: ScriptStep[]): ScriptStep {
  return at < steps.findIndex((step) => step.do === "tls") ? { do: "line" } : step;
}

/** Adds the actions of a willing client among others, the first of which connects it. */
function withFirst(first: Action[], steps: Step[], gaps: (number | null)[]): Step[] {
  const added = first.map((action, i) => ({ action, microtasks: gaps[i] }));
  return [steps[0], ...added, ...steps.slice(1)];
}

const upgradingPlay: fc.Arbitrary<Play> = fc.oneof(
  fc.record({ handler: SCRIPT, script: anyUpgradingScript, steps: stepsOf(upgradingAction) }),
  fc.tuple(willing, stepsOf(upgradingAction), fc.tuple(microtasks, microtasks, microtasks)).map((
    [{ script, first }, steps, gaps],
  ) => ({ handler: "script" as const, script, steps: withFirst(first, steps, gaps) })),
);

const outgoingPlay: fc.Arbitrary<Play> = fc.record({
  handler: SCRIPT,
  outgoing: fc.constantFrom(...OUTGOING),
  script: fc.oneof(anyScript, anyUpgradingScript).map((script) => ({ ...script, strict: false })),
  steps: stepsOf(fc.oneof(anyAction, upgradingAction)),
});

/** Cases with a handler and actions of a kind. */
function scenariosOf(play: fc.Arbitrary<Play>, options: readonly OptionName[]): fc.Arbitrary<Scenario> {
  return fc.record({
    play,
    options: someOptions(options),
    luck: fc.constantFrom(0, 0.5, 0.999),
    bufferBytes: fc.constantFrom(1, 7, 100, 65_536, 65_536),
    faults: fc.oneof(fc.constant(NO_FAULTS), anyPlan),
    still: fc.boolean(),
  }).map(({ play, ...scenario }) => ({ ...play, ...scenario }))
    .map((scenario) => isLong(scenario.steps) ? { ...scenario, bufferBytes: 65_536 } : scenario);
}

/** Any case without TLS. */
export const anyScenario: fc.Arbitrary<Scenario> = scenariosOf(anyPlay, Object.keys(OPTIONS) as OptionName[]);

/** Any case in which a handler begins TLS. */
export const anyUpgrade: fc.Arbitrary<Scenario> = scenariosOf(
  upgradingPlay,
  Object.keys(OPTIONS) as OptionName[],
);

/** Any case in which this side opens the connections, and the clients play the servers. */
export const anyOutgoing: fc.Arbitrary<Scenario> = scenariosOf(outgoingPlay, CONN_OPTIONS);

/** Whether a case has much text, which gets the largest pipe: through a small one it takes long and finds nothing new. */
function isLong(steps: Step[]): boolean {
  const lengths = steps.map(({ action }) =>
    "text" in action ? action.text.length : "behind" in action ? action.behind.length : 0
  );
  return lengths.reduce((sum, length) => sum + length, 0) > 2000;
}

/** Writes a case as JSON, which has `null` in place of `Infinity`. */
export function toJson(scenario: Scenario): string {
  return JSON.stringify(scenario);
}

/** Reads what {@linkcode toJson} wrote. */
export function fromJson(text: string): Scenario {
  // No case has `null` for a time but in place of `Infinity`.
  return JSON.parse(
    text,
    (name, value) => value === null && /Timeout$|^timeout$|^maxAge$/.test(name) ? Infinity : value,
  );
}
