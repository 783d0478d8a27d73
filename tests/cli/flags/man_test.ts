import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { COMMANDS } from "../../../cli/flags/commands.ts";
import { flagName } from "../../../cli/flags/flags.ts";
import { manPage } from "../../../cli/help/man.ts";
import { runCommand } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";

/** Formats the manual page with a program; returns what it complains of, and the text without marks. */
async function format(program: string, ...args: string[]): Promise<{ warnings: string; text: string }> {
  const file = await Deno.makeTempFile({ suffix: ".1" });
  try {
    await Deno.writeTextFile(file, `${manPage()}\n`);
    const env = { MANWIDTH: "200", LC_ALL: "C.UTF-8", GROFF_NO_SGR: "1" };
    const { stdout, stderr } = await new Deno.Command(program, { args: [...args, file], env, stdin: "null" }).output();
    const [text, warnings] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    return { warnings, text: text.replaceAll(/.[\b]/g, "") };
  } finally {
    await Deno.remove(file);
  }
}

for (
  const [program, ...args] of [["groff", "-ww", "-man", "-Tutf8"], ["man", "--warnings", "-l"]]
) {
  const missing = await missingProgram(program, "--version");
  Deno.test({
    name: `${program} finds nothing wrong with the manual page${missing}`,
    ignore: missing !== "",
    async fn() {
      const { warnings, text } = await format(program, ...args);
      assertEquals(warnings, "");
      if (program !== "man") return;
      for (const { flags, summary } of COMMANDS) {
        assertStringIncludes(text, summary);
        for (const [option, { kind }] of Object.entries(flags)) {
          assertStringIncludes(text, `--${flagName(option)} ${kind.symbol}\n`);
        }
      }
      assertStringIncludes(text, "Let clients go on, or finish a line only. Default: linger.");
      assertStringIncludes(text, "End older connections, at a line's end.");
      assertStringIncludes(text, "SHOUTY_HOSTNAME for --hostname");
    },
  });
}

Deno.test("shouty man writes the manual page, and needs no permission", async () => {
  const { code, stdout } = await runCommand(["man"], { permissions: [] });
  assertEquals([code, stdout], [0, `${manPage()}\n`]);
  assert(stdout.startsWith('.TH SHOUTY 1 "" "shouty '));
});

Deno.test("The manual page and docs/command.md have every signal that the command handles, and every exit code", async () => {
  const read = (file: string) => Deno.readTextFile(new URL(`../../../${file}`, import.meta.url));
  const [code, guide] = [await read("cli/process/signals.ts"), await read("docs/command.md")];
  // SIGBREAK is that of Windows, which has no manual pages.
  const signals = new Set(code.match(/\bSIG(?!NALS|BREAK)[A-Z]+\d?\b/g));
  assertGreater(signals.size, 4, "The signals are read wrongly");
  const [, table] = /^\| exit code .*\n.*\n((?:\|.*\n)+)/m.exec(guide)!;
  const exitCodes = [...table.matchAll(/^\| ([\d, ]+?) +\|/gm)].map(([, codes]) => codes);
  assertGreater(exitCodes.length, 3, "The exit codes are read wrongly");
  for (const word of [...signals, ...exitCodes]) assertStringIncludes(manPage(), word);
  for (const signal of signals) assertStringIncludes(guide.split("## Signals and exit codes")[1], signal);
});
