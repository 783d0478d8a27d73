import { assertEquals, assertGreater } from "@std/assert";
import { serve } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { SERVE } from "../../../cli/flags/flags.ts";
import { parse } from "../../../cli/line/parse.ts";
import {
  DEFAULT_ADMIT_TIMEOUT,
  DEFAULT_BUFFERED_BYTES,
  DEFAULT_DRAIN_TIMEOUT,
  DEFAULT_KEEP_ALIVE_MS,
} from "../../../internal/api/check.ts";
import { document } from "../../kit/project/guides.ts";

/** The limits of a server, with their defaults. */
async function defaults(): Promise<ReadonlyMap<string, unknown>> {
  await using server = serve({ listener: new MemoryListener() });
  return new Map(Object.entries({
    ...server.limits,
    drainTimeout: DEFAULT_DRAIN_TIMEOUT,
    admitTimeout: DEFAULT_ADMIT_TIMEOUT,
    keepAliveMs: DEFAULT_KEEP_ALIVE_MS,
    maxBufferedBytes: DEFAULT_BUFFERED_BYTES,
  }));
}

const UNITS: Readonly<Record<string, number>> = { "": 1, "s": 1000, "B/s": 1, "KiB": 2 ** 10, "MiB": 2 ** 20 };

/** Whether a default is what a table says of it. */
function isStated(value: unknown, text: string, all: ReadonlyMap<string, unknown>): boolean {
  if (text.startsWith("off")) return value === Infinity || value === false || value === 0;
  const [, other] = /^as `(\w+)`/.exec(text) ?? [];
  if (other !== undefined) return value === all.get(other);
  const [, digits, unit = ""] = /^(\d+(?: \d{3})*)(?: (s|B\/s|KiB|MiB)\b)?/.exec(text) ?? [];
  if (digits !== undefined) return value === Number(digits.replace(" ", "")) * UNITS[unit];
  return text === `\`"${value}"\`` || value === null && text.startsWith("none");
}

Deno.test("The tables in the README and docs/limits.md state the defaults of the code", async () => {
  const all = await defaults();
  for (const [path, least] of [["README.md", 10], ["docs/limits.md", 20]] as const) {
    let found = 0;
    for (const [, names, text] of (await document(path)).matchAll(/^\| ((?:`\w+`(?:, )?)+) +\| ([^|]+?) +\|/gm)) {
      for (const [, name] of names.matchAll(/`(\w+)`/g)) {
        // The hook `admit` and its time share a row.
        if (!all.has(name) || name === "admitTimeout") continue;
        found++;
        assertEquals([path, name, isStated(all.get(name), text, all) || text], [path, name, true]);
      }
    }
    assertGreater(found, least, "The tables are read wrongly");
  }
});

Deno.test("The comments of the options state the defaults of the code", async () => {
  const all = await defaults();
  const texts = await Promise.all(["conn", "serve"].map((name) => document(`internal/api/${name}_options.ts`)));
  const stated = [...texts.join("").matchAll(/@default \{(.+)\}\n {3}\*\/\n {2}(\w+)\?:/g)];
  assertGreater(stated.length, 20, "The comments are read wrongly");
  for (const [, text, name] of stated) {
    if (!all.has(name)) continue;
    const value = text === "Infinity" ? Infinity : JSON.parse(text.replaceAll("_", ""));
    assertEquals([name, value], [name, all.get(name)]);
  }
});

Deno.test("The command's limits are those of the library, but for clients that speak another protocol", async () => {
  const all = await defaults();
  const parsed = parse(SERVE, [], () => undefined);
  if (parsed.ask !== undefined) throw new Error("No flag asks for anything");
  const own = Object.entries(parsed.values).filter(([name, value]) => all.has(name) && value !== all.get(name));
  assertEquals(Object.fromEntries<unknown>(own), { answerMisdirected: true, drainTimeout: 8000 });
});
