import { assertEquals, assertMatch } from "@std/assert";
import { Progress, type Screen } from "../../../tools/progress.ts";
import { test } from "../../kit/bounded.ts";
import { HAS_SCRIPT, startInTerminal } from "../../kit/command.ts";

/** A terminal or a pipe, and a clock that the test moves. */
class FakeScreen implements Screen {
  text = "";
  ms = 0;
  readonly now = () => this.ms;

  constructor(readonly terminal: boolean) {}

  isTerminal(): boolean {
    return this.terminal;
  }

  /** Takes some bytes of each write only, as a terminal may. */
  writeSync(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, 7);
    this.text += new TextDecoder().decode(taken);
    return taken.length;
  }

  /** What one sees: what has been erased is gone. */
  get seen(): string {
    // deno-lint-ignore no-control-regex -- the erasing is what is looked for
    return this.text.replaceAll(/[^\n]*\r\x1b\[K/g, "");
  }
}

test("progress on a terminal is one line at the bottom, which makes way for finished lines and goes away", () => {
  const screen = new FakeScreen(true);
  {
    using progress = new Progress({ total: 4, screen, now: screen.now, columns: () => 48 });
    progress.show("first");
    assertEquals(screen.seen, "[--------------------] 0/4 0:00 first");
    screen.ms = 61_000;
    progress.step("first: done");
    assertEquals(screen.seen, "first: done\n[#####---------------] 1/4 1:01 first");
    progress.show("a name that is much too long for this terminal", 4);
    assertEquals(screen.seen.split("\n")[1], "[####################] 4/4 1:01 a name that is ");
  }
  assertEquals(screen.seen, "first: done\n");
});

test("progress in a pipe is the finished lines, and at most once a minute what is under way", () => {
  const screen = new FakeScreen(false);
  {
    using progress = new Progress({ screen, now: screen.now });
    progress.show("first");
    progress.step("first: done");
    screen.ms = 59_999;
    progress.show("second");
    screen.ms = 60_000;
    progress.show("second");
    progress.show("third");
  }
  assertEquals(screen.text, "first: done\n1:00 second\n");
});

test(
  "fuzz shows a bar on a terminal, erases it, and ends with its one line",
  async () => {
    await using fuzz = startInTerminal([
      "run",
      "-A",
      "--no-check",
      "tools/fuzz/main.ts",
      "--time",
      "1s",
      "--only",
      "bytes",
    ]);
    const { code, stdout } = await fuzz.outcome();
    assertEquals(code, 0, stdout);
    // deno-lint-ignore no-control-regex -- erases the line
    assertMatch(stdout, /\r\x1b\[K\[-{20}\] 0\/1 0:00 0 cases\r\x1b\[K/);
    assertMatch(stdout, /\d+ cases of bytes, .*: all went well\r\n/);
    assertEquals(stdout.endsWith("\r\x1b[K"), true);
  },
  60,
  HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)",
);
