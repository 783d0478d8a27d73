import { anyBytes, anyCut, cutInput, feed } from "../../../tools/fuzz/bytes.ts";
import { anyOutgoing, anyScenario, anyUpgrade, fromJson } from "../../../tools/fuzz/scenario/scenario.ts";
import { play } from "../../../tools/fuzz/world.ts";
import { test } from "../../kit/bounded.ts";
import { check } from "../../kit/property.ts";

const CORPUS = new URL("../../corpus/", import.meta.url);

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

test("A server keeps its rules where TLS begins, whatever comes before, meanwhile and after", async () => {
  await check([anyUpgrade], play, 300);
});

test("Connections that this side opens keep the same rules, one by one and in a pool", async () => {
  await check([anyOutgoing], play, 300);
});
