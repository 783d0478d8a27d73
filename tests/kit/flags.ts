/**
 * The values that the server's flags give, and what is said of wrong ones.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { CommandError } from "../../cli/system/errors.ts";
import { SERVE, type ServeFlags } from "../../cli/flags/flags.ts";
import { parse, type Values } from "../../cli/line/parse.ts";

/** Parses the flags and variables of the server; returns their values. */
export function values(args: string, env: Record<string, string> = {}): Values<ServeFlags> {
  const parsed = parse(SERVE, args.split(" ").filter(Boolean), (name) => env[name]);
  assert(parsed.ask === undefined);
  return parsed.values;
}

/** Parses flags and variables that are wrong; returns the line that says so. */
export function complaint(args: string[], env: Record<string, string> = {}): string {
  const error = assertThrows(() => parse(SERVE, args, (name) => env[name]), CommandError);
  assertEquals(error.exitCode, 2);
  assertEquals(error.message.split("\n").length, 1);
  return error.message;
}
