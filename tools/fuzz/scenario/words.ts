/**
 * What the handler of a script writes.
 *
 * @module
 */

import type { Entry } from "./script.ts";
import { SECRET } from "./upgrade.ts";

/** What the handler writes for a step: before it begins TLS, if it does, and behind that. */
export function wordsAround(i: number, entry: Entry): { before: string[]; behind: string[] } {
  const { step, end } = entry;
  if (step.do !== "tls") return { before: [], behind: [wordOf(i, entry)] };
  const closedAt = step.meanwhile.indexOf("close");
  const written = closedAt < 0 ? step.meanwhile : step.meanwhile.slice(0, closedAt);
  const secrets = written.filter((what) => what === "write").map(() => `<${i} ${SECRET}>\n`);
  return {
    before: Array(step.before).fill(`<${i} before>\n`),
    behind: end === "Closed" ? [] : hasClosed(entry) ? secrets : [...secrets, wordOf(i, entry)],
  };
}

/** Whether a step has ended its connection, so that the handler can write nothing more. */
export function hasClosed({ step, end }: Entry): boolean {
  return end === "Closed" || step.do === "tls" && /close|abort/.test(step.meanwhile.join());
}

/** What the handler writes after each step. */
export function wordOf(i: number, { lines, bytes, end }: Entry): string {
  return `<${i} ${lines.length} ${bytes.length} ${end ?? "ok"}>\n`;
}
