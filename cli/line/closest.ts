/**
 * Guesses what a user meant by a name that does not exist.
 *
 * @module
 */

/** Minimum length of a name that may be the beginning of another. */
const LEAST_PREFIX = 3;

/**
 * Finds the name that a misspelt one is closest to. Capitals, dashes and underscores make no difference: `maxAge` is
 * `max-age`.
 *
 * @param given What the user has written.
 * @param names The names there are.
 * @returns One of them; `undefined` if none is close.
 */
export function closest(given: string, names: readonly string[]): string | undefined {
  const word = plain(given);
  const near = names
    .map((name) => ({ name, distance: distance(word, plain(name)) }))
    .filter(({ name, distance }) => distance <= Math.max(word.length, plain(name).length) / 3)
    .toSorted((a, b) => a.distance - b.distance);
  const [first] = near;
  return first?.name ?? names.find((name) => isBeginning(word, plain(name)) || isBeginning(plain(name), word));
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, "");
}

function isBeginning(start: string, name: string): boolean {
  return start.length >= LEAST_PREFIX && name.startsWith(start);
}

/** The least number of letters to add, remove, replace, or exchange with their neighbour, to make one word the other. */
function distance(from: string, to: string): number {
  /** The distances between the beginnings of both words: `rows[i][j]` is that of the first `i` and the first `j` letters. */
  const rows: number[][] = [];
  for (let i = 0; i <= from.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= to.length; j++) {
      const replaced = i === 0 ? Infinity : rows[i - 1][j - 1] + (from[i - 1] === to[j - 1] ? 0 : 1);
      const exchanged = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      rows[i][j] = Math.min(
        replaced,
        rows[i][j - 1] + 1,
        i === 0 ? Infinity : rows[i - 1][j] + 1,
        exchanged ? rows[i - 2][j - 2] + 1 : Infinity,
      );
    }
  }
  return rows[from.length][to.length];
}
