import { assertEquals, assertLess, assertMatch, assertNotEquals, fail } from "@std/assert";
import { exchange } from "./line_client.ts";

const EXAMPLES = `${import.meta.dirname}/../examples`;

Deno.test("shout_stream runs as its comment says", async () => {
  await using example = await Example.run("shout_stream");
  assertEquals(await exchange(example.addr, "Hello. How are you?\n"), "HELLO. HOW ARE YOU?\n");
});

Deno.test("kv_store runs as its comment says", async () => {
  await using example = await Example.run("kv_store");
  const replies = await exchange(example.addr, "set greeting 0 0 5\nhello\nget greeting\n");
  assertEquals(replies, "STORED\r\nVALUE greeting 0 5\r\nhello\r\nEND\r\n");
});

Deno.test("chat runs as its comment says", async () => {
  await using example = await Example.run("chat");
  assertEquals(await exchange(example.addr, "ada\nHello, Bob!\n"), "Your name?\n* here: ada\nada: Hello, Bob!\n");
});

Deno.test("prefix_proxy runs as its comment says", async () => {
  await using upstream = await Example.run("shout_stream");
  await using example = await Example.run("prefix_proxy", `127.0.0.1:${upstream.addr.port}`);
  assertEquals(await exchange(example.addr, "hello\n"), "PROXY SAYS: HELLO\n");
});

Deno.test("every example is a page that one can copy", async () => {
  for await (const { name } of Deno.readDir(EXAMPLES)) {
    if (!name.endsWith(".ts")) continue;
    const text = await Deno.readTextFile(`${EXAMPLES}/${name}`);
    assertLess(text.split("\n").length, 101, name);
    assertMatch(text, /^import .+ from "@x\/shouty";$/m, name);
  }
});

/** An example in a process of its own. */
class Example implements AsyncDisposable {
  private constructor(readonly addr: Deno.NetAddr, readonly child: Deno.ChildProcess) {}

  /** Runs it by the command in its comment, but on a free port, and perhaps with another upstream. */
  static async run(name: string, upstream = ""): Promise<Example> {
    const source = await Deno.readTextFile(`${EXAMPLES}/${name}.ts`);
    const [, command, usual] = /`deno (run [^`]+\.ts (\d+)[^`]*)`/.exec(source)!;
    const words = command.replace("127.0.0.1:8080", upstream).replace(`.ts ${usual}`, ".ts 0").matchAll(/"(.*)"|\S+/g);
    const args = Array.from(words, ([word, quoted]) => quoted ?? word);
    const child = new Deno.Command(Deno.execPath(), { args, cwd: `${EXAMPLES}/..`, stderr: "piped" }).spawn();
    const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    const { value = "" } = await reader.read();
    await reader.cancel();
    const [, port] = /^listening on 127\.0\.0\.1:(\d+)\n$/.exec(value) ?? fail(`${name} said: ${value}`);
    assertNotEquals(port, usual);
    return new Example({ transport: "tcp", hostname: "127.0.0.1", port: Number(port) }, child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill();
    await this.child.status;
  }
}
