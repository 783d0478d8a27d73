/**
 * What is measured: each figure's name for OpenTelemetry and for Prometheus, its unit and its meaning.
 *
 * Names, units and boundaries follow OpenTelemetry's stable conventions for the web server Kestrel as far as they go. Two
 * things are different. Figures do not tell the addresses at which the server listens apart: behind the PROXY protocol,
 * the local address is what a header says. And the close reason has a counter of its own, because `error.type` leaves out
 * ordinary ends.
 *
 * @module
 */

import { CLOSE_REASONS, REJECT_REASONS } from "../../internal/api/reasons.ts";

/** One figure, which has one value for each combination of its attributes. */
export interface Instrument {
  /** Its name for OpenTelemetry. */
  readonly name: string;
  /** Its name for Prometheus, which says the unit and whether it only grows. */
  readonly prometheus: string;
  /** `counter` only grows, `gauge` goes up and down, `histogram` has the distribution of durations. */
  readonly kind: "counter" | "gauge" | "histogram";
  /** Its unit, as OpenTelemetry writes units. */
  readonly unit: string;
  /** What it means, in one sentence. */
  readonly description: string;
  /** The names of its attributes for OpenTelemetry, and what Prometheus calls each. */
  readonly attributes: Readonly<Record<string, string>>;
  /** The upper bounds of a histogram's buckets, in seconds. */
  readonly boundaries?: readonly number[];
  /** The values of its only attribute that are 0 from the start, not missing: a first rise from nothing is not seen. */
  readonly known?: readonly string[];
}

/** Kestrel's, and two more: a conversation by lines can last for hours. */
const CONNECTION_SECONDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 1800, 7200];
/** Kestrel's. */
const HANDSHAKE_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
/** Most handlers take microseconds, and those that ask a database or another server take milliseconds. */
const HANDLER_SECONDS = [0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

const CONNECTION = "{connection}";
const ERROR_TYPE = { "error.type": "error_type" };

type Key =
  | ("active" | "queued" | "accepted" | "closed" | "rejected" | "gone" | "duration")
  | ("lines" | "bytes" | "handlers" | "handler" | "handlerErrors" | "acceptErrors" | "hookErrors")
  | ("handshakes" | "handshake");

/** All figures. */
export const INSTRUMENTS: Readonly<Record<Key, Instrument>> = {
  active: gauge("active_connections", CONNECTION, "Number of connections that are open now."),
  queued: gauge(
    "queued_connections",
    CONNECTION,
    "Number of connections that were accepted and are not served yet: they wait for a PROXY header, a TLS handshake, admit, or the end of a pause.",
  ),
  accepted: counter("accepted_connections", CONNECTION, "Number of connections that were accepted and served."),
  closed: {
    ...counter("closed_connections", CONNECTION, "Number of connections that have ended."),
    attributes: { "shouty.close.reason": "reason" },
    known: CLOSE_REASONS,
  },
  rejected: {
    ...counter("rejected_connections", CONNECTION, "Number of connections that were rejected."),
    attributes: { "error.type": "reason" },
    known: REJECT_REASONS,
  },
  gone: counter("gone_connections", CONNECTION, "Number of connections whose peers left before they were served."),
  duration: histogram(
    "connection.duration",
    "Time from a connection's acceptance to its end; error.type is the close reason, unless the end is an ordinary one.",
    CONNECTION_SECONDS,
    ERROR_TYPE,
  ),
  lines: counter("lines", "{line}", "Number of whole lines read."),
  bytes: {
    ...counter("network.io", "By", "Number of bytes read and written."),
    prometheus: "shouty_network_io_bytes_total",
    attributes: { "network.io.direction": "direction" },
    known: ["receive", "transmit"],
  },
  handlers: gauge("active_handlers", "{handler}", "Number of handlers at work, also of connections that have ended."),
  handler: histogram(
    "handler.duration",
    "Time from a handler's call to its result; error.type is the class of what it threw.",
    HANDLER_SECONDS,
    ERROR_TYPE,
  ),
  handlerErrors: counter("handler_errors", "{error}", "Number of times that a handler or the option data threw."),
  acceptErrors: {
    ...counter("accept_errors", "{error}", "Number of times that accepting failed, by the class of the error."),
    attributes: ERROR_TYPE,
  },
  hookErrors: counter("hook_errors", "{error}", "Number of times that a function of the options, except data, threw."),
  handshakes: gauge("active_tls_handshakes", "{handshake}", "Number of TLS handshakes in progress."),
  handshake: histogram(
    "tls_handshake.duration",
    "Time of a TLS handshake; error.type says why it failed.",
    HANDSHAKE_SECONDS,
    { "tls.protocol.version": "tls_protocol_version", ...ERROR_TYPE },
  ),
};

function counter(name: string, unit: string, description: string): Instrument {
  return {
    name: `shouty.${name}`,
    prometheus: `${prefixed(name)}_total`,
    kind: "counter",
    unit,
    description,
    attributes: {},
  };
}

function gauge(name: string, unit: string, description: string): Instrument {
  return { name: `shouty.${name}`, prometheus: prefixed(name), kind: "gauge", unit, description, attributes: {} };
}

function histogram(
  name: string,
  description: string,
  boundaries: readonly number[],
  attributes: Instrument["attributes"],
): Instrument {
  const prometheus = `${prefixed(name)}_seconds`;
  return { name: `shouty.${name}`, prometheus, kind: "histogram", unit: "s", description, attributes, boundaries };
}

function prefixed(name: string): string {
  return `shouty_${name.replaceAll(".", "_")}`;
}
