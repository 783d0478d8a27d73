/**
 * The distribution of durations in the last one to two minutes, for people who look at it now.
 *
 * @module
 */

/** The time after which the older half of the durations is forgotten, in milliseconds. */
const HALF_MS = 60_000;
/** Buckets for each doubling of a duration: a quantile is at most a tenth too large or too small. */
const PER_DOUBLING = 4;
/** The shortest duration that is told from a shorter one: about a tenth of a microsecond, in milliseconds. */
const LEAST_MS = 2 ** -13;
/** Number of buckets: from {@linkcode LEAST_MS} to more than a month. */
const BUCKETS = 45 * PER_DOUBLING;

/** How long something took, in milliseconds: half of the durations were at most `p50`, and so on. */
export interface Quantiles {
  /** The number of durations. */
  readonly count: number;
  /** What half of them did not exceed; `null` if there are none. */
  readonly p50: number | null;
  /** What nine in ten did not exceed. */
  readonly p90: number | null;
  /** What 99 in 100 did not exceed. */
  readonly p99: number | null;
}

/** Durations of the last one to two minutes. */
export class RecentTimes {
  #older = new Uint32Array(BUCKETS);
  #newer = new Uint32Array(BUCKETS);
  #since = -Infinity;

  /** Adds a duration that ends now. */
  add(ms: number, now: number): void {
    this.#forget(now);
    const index = ms <= LEAST_MS ? 0 : Math.ceil(Math.log2(ms / LEAST_MS) * PER_DOUBLING);
    this.#newer[Math.min(index, BUCKETS - 1)]++;
  }

  /** Returns what the durations were like. */
  read(now: number): Quantiles {
    this.#forget(now);
    const counts = this.#newer.map((count, i) => count + this.#older[i]);
    const count = counts.reduce((sum, count) => sum + count, 0);
    const [p50, p90, p99] = [0.5, 0.9, 0.99].map((part) => quantile(counts, Math.ceil(part * count)));
    return { count, p50, p90, p99 };
  }

  #forget(now: number): void {
    if (now - this.#since < HALF_MS) return;
    const all = now - this.#since >= 2 * HALF_MS;
    [this.#older, this.#newer] = [this.#newer, this.#older];
    this.#newer.fill(0);
    if (all) this.#older.fill(0);
    this.#since = now;
  }
}

/** The duration of the given rank: the middle of its bucket, on the logarithmic scale. */
function quantile(counts: Uint32Array, rank: number): number | null {
  if (rank === 0) return null;
  let index = 0;
  for (let seen = counts[0]; seen < rank; seen += counts[index]) index++;
  return index === 0 ? LEAST_MS : LEAST_MS * 2 ** ((index - 0.5) / PER_DOUBLING);
}
