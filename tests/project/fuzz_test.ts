import { anyBytes, anyCut, cutInput, feed } from "../../tools/fuzz/bytes.ts";
import { anyScenario, fromJson } from "../../tools/fuzz/scenario.ts";
import { play } from "../../tools/fuzz/world.ts";
import { test } from "../kit/bounded.ts";
import { check } from "../kit/property.ts";

const CORPUS = new URL("../corpus/", import.meta.url);

for (const { name } of [...Deno.readDirSync(CORPUS)].toSorted((a, b) => a.name < b.name ? -1 : 1)) {
  test(`Fuzzing found: ${name.replace(/\.json$/, "").replaceAll("_", " ")}`, async () => {
    await play(fromJson(await Deno.readTextFile(new URL(name, CORPUS))));
  });
}

test("The limiter agrees with the oracle on any bytes in any segments", async () => {
  await check([anyBytes], feed, 2000);
});

test("Lines under any framing, and bytes between them, are those of the oracle, in any segments", async () => {
  await check([anyCut], cutInput, 2000);
});

test("A server keeps its rules, whatever clients, limits and faults it meets", async () => {
  await check([anyScenario], play, 300);
});
