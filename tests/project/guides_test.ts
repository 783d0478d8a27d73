import { test } from "../kit/bounded.ts";
import { follow } from "../kit/guides.ts";

// The guides are for a shell of Unix.
const NO_SHELL = Deno.build.os === "windows" ? " (skipped: Windows has no bash)" : "";

test("docs/first_protocol.md prints what it says", () => follow("docs/first_protocol.md"), 240, NO_SHELL);
