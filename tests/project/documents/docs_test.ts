import { assertEquals, assertMatch } from "@std/assert";
import config from "../../../deno.json" with { type: "json" };

const ROOT = new URL("../../..", import.meta.url);
const ENTRIES = Object.values(config.exports);

async function doc(flag: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const options = { args: ["doc", flag, ...ENTRIES], cwd: ROOT, env: { NO_COLOR: "1" } };
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), options).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("deno doc --lint has nothing to say about any entry point", async () => {
  const { code, stderr } = await doc("--lint");
  const said = stderr.split("\n").filter((line) => !line.startsWith("Download "));
  assertEquals([code, ...said], [0, `Checked ${ENTRIES.length} files`, ""]);
});

Deno.test("Every entry point and everything that it exports is documented", async () => {
  const { nodes } = JSON.parse((await doc("--json")).stdout) as { nodes: Record<string, Module> };
  assertEquals(Object.keys(nodes), ENTRIES.map((entry) => new URL(entry, ROOT).href));
  for (const [entry, { module_doc, symbols }] of Object.entries(nodes)) {
    assertMatch(module_doc?.doc ?? "", /\w/, entry);
    const documented = ({ declarations }: Symbol) => declarations.some(({ jsDoc }) => /\w/.test(jsDoc?.doc ?? ""));
    assertEquals(symbols.filter((symbol) => !documented(symbol)).map(({ name }) => name), [], entry);
  }
});

Deno.test("The changelog begins with the version of deno.json", async () => {
  const changelog = await Deno.readTextFile(new URL("CHANGELOG.md", ROOT));
  assertEquals(/^## (?:\[?)([^\]\s]+)/m.exec(changelog)?.[1], config.version);
});

/** A module in the output of `deno doc --json`. */
interface Module {
  module_doc?: { doc?: string };
  symbols: Symbol[];
}

interface Symbol {
  name: string;
  declarations: { jsDoc?: { doc?: string } }[];
}
