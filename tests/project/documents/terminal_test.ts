import { assertEquals } from "@std/assert";
import { linesOf, record } from "../../../tools/terminal_svg.ts";
import { test } from "../../kit/bounded.ts";
import { HAS_SCRIPT } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { freePort } from "../../kit/sockets/free_port.ts";
import { document } from "../../kit/project/guides.ts";

const MISSING = HAS_SCRIPT ? await missingProgram("telnet", "--version") : " (skipped: util-linux's script is missing)";

/** Lines without what differs from run to run. */
function comparable(lines: string[], port: number): string[] {
  return lines.map((line) =>
    line.replace(/^\d{4}-\S+Z/, "TIME").replaceAll(String(port), "PORT")
      .replace(/127\.0\.0\.1:\d+/, "127.0.0.1:CLIENT").replace(/[\d.]+ s\)/, "DURATION)")
  );
}

test(
  "docs/terminal.svg shows what a run shows",
  async () => {
    const port = freePort();
    const seen = (await record(port)).flatMap(({ lines }) => lines);
    const drawn = linesOf(await document("docs/terminal.svg"));
    assertEquals(comparable(drawn, 8080), comparable(seen, port));
  },
  120,
  MISSING,
);
