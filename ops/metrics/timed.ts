/**
 * Measures how long handlers take.
 *
 * @module
 */

import { harmless } from "../../internal/api/errors.ts";
import { ANSWER_BYTES, type BytesHandler, type ConnHandler, type LineHandler } from "../../internal/api/handlers.ts";

/** Any handler. */
// deno-lint-ignore no-explicit-any
type AnyHandler = LineHandler<any> | ConnHandler<any>;

/** Notes that a call which began at `since` has ended, by a throw if `thrown` is there. */
type Note = (since: number, thrown?: { readonly error: unknown }) => void;

/**
 * Wraps a handler so that each of its calls is measured, and nothing else about it changes.
 *
 * @param handler The handler.
 * @param now Tells the time in milliseconds.
 * @param note Called at the end of each call.
 * @returns The wrapped handler, with the same optional methods.
 */
export function timeCalls<H extends AnyHandler>(handler: H, now: () => number, note: Note): H {
  const { block, [ANSWER_BYTES]: bytes } = handler as BytesHandler;
  const measured = measure(handler as Call, now, note);
  if (block !== undefined) Object.assign(measured, { block: measure(block.bind(handler) as Call, now, note) });
  if (bytes !== undefined) {
    // Without an answer, the server asks `block` next, and that call is measured.
    const call = measure(bytes.bind(handler) as Call, now, note, true);
    Object.assign(measured, { [ANSWER_BYTES]: call });
  }
  return measured as unknown as H;
}

type Call = (first: unknown, second?: unknown) => unknown;

function measure(call: Call, now: () => number, note: Note, onlyAnswers = false): Call {
  return (first, second) => {
    const since = now();
    let result: unknown;
    try {
      result = call(first, second);
    } catch (error) {
      note(since, { error });
      throw error;
    }
    // Nothing waits for the note, which fails if the clock does.
    if (result instanceof Promise) harmless(result.then(() => note(since), (error) => note(since, { error })));
    else if (result !== undefined || !onlyAnswers) note(since);
    return result;
  };
}
