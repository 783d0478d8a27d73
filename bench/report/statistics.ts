// What a number of readings say together.

/** The value below which a share of the values lies, with a straight line between neighbours. */
function quantile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return low + (high - low) * (at % 1);
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: number[]): number {
  return quantile(values, 0.5);
}

/** What pairs of runs say of a change. */
export type Verdict = "slower" | "faster" | "same" | "unclear";

/** Ratios of new to old, summed up. */
export interface Comparison {
  median: number;
  min: number;
  max: number;
  verdict: Verdict;
}

/** Maximum probability that chance alone puts that number of pairs on one side; 6 pairs reach it if all agree, 15 if 12 do. */
const CHANCE = 0.02;

/** The probability that at least `hits` of `count` throws of a coin are heads. */
export function chanceOf(hits: number, count: number): number {
  let [ways, sum] = [1, 0];
  for (let heads = 0; heads <= count; heads++) {
    if (heads >= hits) sum += ways;
    ways = ways * (count - heads) / (heads + 1);
  }
  return sum / 2 ** count;
}

/**
 * Judges ratios of what the new code takes to what the old takes, each of one pair of runs. `slower` and `faster` need a
 * median beyond the tolerance, and more pairs lie on that side of 1 than chance puts there once in fifty times; `same`
 * needs a median within the tolerance, and the middle half of the ratios within twice that. All else is `unclear`: more
 * pairs or a quieter machine may tell.
 *
 * @param ratios One for each pair.
 * @param tolerance The change that matters, such as 0.03.
 */
export function compare(ratios: number[], tolerance: number): Comparison {
  const middle = median(ratios);
  const agree = (on: (ratio: number) => boolean) => chanceOf(ratios.filter(on).length, ratios.length) <= CHANCE;
  const judge = (): Verdict => {
    if (middle > 1 + tolerance && agree((ratio) => ratio > 1)) return "slower";
    if (middle < 1 - tolerance && agree((ratio) => ratio < 1)) return "faster";
    const [low, high] = [quantile(ratios, 0.25), quantile(ratios, 0.75)];
    const near = Math.abs(middle - 1) <= tolerance && low >= 1 - 2 * tolerance && high <= 1 + 2 * tolerance;
    return near ? "same" : "unclear";
  };
  return { median: middle, min: Math.min(...ratios), max: Math.max(...ratios), verdict: judge() };
}
