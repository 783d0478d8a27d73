/** Lines that a handler keeps do not keep the text that they were cut out of. */
import { test } from "../kit/bounded.ts";
import { memoryAfter } from "../kit/figures/memory.ts";

/** The number of lines that are kept, one of each 100, and the maximum memory that they may take, in bytes each. */
const KEPT = 2000;
const MOST_BYTES = 1000;

/** Serves one client after another, each with text of another kind, and fails if the kept lines take too much. */
const PROGRAM = (start: string, independent: boolean, mostBytes: number) => `
  import { serve, serveConnections } from "${import.meta.resolve("../../mod.ts")}";
  import { MemoryListener } from "${import.meta.resolve("../../testing/mod.ts")}";
  const kinds = [["x", {}], ["é", {}], ["é", { encoding: "latin1" }], ["€", { invalidText: "error", lineEnd: "lf" }]];
  for (const [character, framing] of kinds) {
    const listener = new MemoryListener({ bufferBytes: 1 << 20 });
    const options = { listener, framing, independentLines: ${independent} };
    const kept = [];
    let lines = 0;
    const keep = (line) => void (++lines % 100 === 0 && kept.push(line));
    const server = ${start};
    const client = listener.connect();
    const text = ("line " + character).padEnd(40, character) + "\\n";
    for (let i = 0; i < ${KEPT}; i++) await client.write(text.repeat(100));
    await client.closeWrite();
    await client.readAll();
    client.close();
    await server.shutdown();
    if (kept.length !== ${KEPT}) throw new Error(kept.length + " lines were kept");
    const used = () => (gc(), gc(), Deno.memoryUsage()).heapUsed;
    const before = used();
    kept.length = 0;
    const grown = (before - used()) / ${KEPT};
    if (grown > ${mostBytes}) throw new Error("A line of 40 times " + character + " keeps " + grown + " bytes");
  }
`;

const HANDLERS: Readonly<Record<string, string>> = {
  "a line handler": "serve(options, keep)",
  "an async line handler": "serve(options, async (line) => await keep(line))",
  "conn.lines": "serveConnections(options, async (conn) => { for await (const line of conn.lines) keep(line); })",
  "conn.readLine":
    "serveConnections(options, async (conn) => { for (let line; (line = await conn.readLine()) !== null;) keep(line); })",
  "conn.batches":
    "serveConnections(options, async (conn) => { for await (const lines of conn.batches) lines.forEach(keep); })",
};

for (const [how, start] of Object.entries(HANDLERS)) {
  test(`lines that ${how} keeps do not keep the text that they were cut out of`, async () => {
    await memoryAfter(PROGRAM(start, true, MOST_BYTES));
  });
}

test("without independentLines a kept line keeps a small part of the block that it came with", async () => {
  await memoryAfter(PROGRAM(HANDLERS["conn.lines"], false, 3000));
});
