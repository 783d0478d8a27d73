/**
 * Holds the figures, and passes each change on to exporters.
 *
 * @module
 */

import type { ServerEvent } from "../../internal/api/events.ts";
import { type Instrument, INSTRUMENTS } from "./instruments.ts";

/** The attributes of one value, by OpenTelemetry's names, always in the instrument's order; undefined for none. */
export type Attributes = Readonly<Record<string, string>> | undefined;

/** The values of one instrument for one combination of its attributes. */
export interface Series {
  /** The combination. */
  readonly attributes: Attributes;
  /** The value of a counter or gauge; of a histogram, the sum of all durations in seconds. */
  value: number;
  /** Of a histogram: how many durations fell into each bucket; the last one is for those above all boundaries. */
  readonly buckets: number[];
}

/** An instrument with all its series. */
export interface Reading {
  /** What is measured. */
  readonly instrument: Instrument;
  /** Its values. */
  readonly series: readonly Series[];
}

/** Gets each change of a figure as it happens. It must not throw. */
export interface Sink {
  /** Adds to a counter or a gauge. */
  add(instrument: Instrument, amount: number, attributes: Attributes): void;
  /** Records a duration. */
  record(instrument: Instrument, seconds: number, attributes: Attributes): void;
  /** Gets each event of the server after its figures. */
  event(event: ServerEvent): void;
}

/** All figures. */
export class Figures {
  readonly sinks: Set<Sink> = new Set();
  readonly #series = new Map<Instrument, Map<string, Series>>();

  constructor() {
    for (const instrument of Object.values<Instrument>(INSTRUMENTS)) {
      this.#series.set(instrument, new Map());
      const [attribute] = Object.keys(instrument.attributes);
      if (attribute === undefined) this.#at(instrument, undefined);
      for (const value of instrument.known ?? []) this.#at(instrument, { [attribute]: value });
    }
  }

  /** Adds to a counter or a gauge. */
  add(instrument: Instrument, amount: number, attributes?: Attributes): void {
    if (amount === 0) return;
    this.#at(instrument, attributes).value += amount;
    for (const sink of this.sinks) sink.add(instrument, amount, attributes);
  }

  /** Sets a counter or a gauge whose total is counted elsewhere. */
  set(instrument: Instrument, total: number, attributes?: Attributes): void {
    this.add(instrument, total - this.#at(instrument, attributes).value, attributes);
  }

  /** Records a duration in a histogram. */
  record(instrument: Instrument, seconds: number, attributes?: Attributes): void {
    const series = this.#at(instrument, attributes);
    series.value += seconds;
    const { boundaries = [] } = instrument;
    let bucket = 0;
    while (bucket < boundaries.length && seconds > boundaries[bucket]) bucket++;
    series.buckets[bucket]++;
    for (const sink of this.sinks) sink.record(instrument, seconds, attributes);
  }

  /** Returns the series of an instrument. */
  of(instrument: Instrument): Series[] {
    return [...this.#series.get(instrument)!.values()];
  }

  /** Returns all figures, in the order of the table. */
  read(): Reading[] {
    return Array.from(this.#series.keys(), (instrument) => ({ instrument, series: this.of(instrument) }));
  }

  #at(instrument: Instrument, attributes: Attributes): Series {
    const all = this.#series.get(instrument)!;
    const key = attributes === undefined ? "" : Object.entries(attributes).flat().join("\n");
    let series = all.get(key);
    if (series === undefined) {
      const buckets = instrument.boundaries === undefined ? [] : Array(instrument.boundaries.length + 1).fill(0);
      all.set(key, series = { attributes, value: 0, buckets });
    }
    return series;
  }
}

/** Returns the number of durations in a histogram's series. */
export function countOf({ buckets }: Series): number {
  return buckets.reduce((sum, count) => sum + count, 0);
}
