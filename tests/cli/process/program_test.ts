import { assertEquals } from "@std/assert";
import { argsFor } from "../../../cli/process/program.ts";

const SOCKETS = ["--listen-fd=5,6:tls", "--upgrade=child"];

/** The arguments of a process, and those of them that its successor gets beside its sockets. */
const CASES: readonly (readonly [args: string[], kept: string[], behind?: string[]])[] = [
  [[], []],
  [["--upgrade", "--port", "80"], ["--port", "80"]],
  [["--port", "80", "--upgrade"], ["--port", "80"]],
  [["--upgrade", "on", "--port", "80"], ["--port", "80"]],
  [["--upgrade", "child", "--listen-fd", "3,4:tls", "--telnet"], ["--telnet"]],
  [["--upgrade=child", "--listen-fd=3,4:tls", "on"], ["on"]],
  [["--listen-fd=3", "off", "--upgrade", "online", "--upgrade-timeout", "9"], [
    "off",
    "online",
    "--upgrade-timeout",
    "9",
  ]],
  [["--upgrade", "--", "--upgrade", "--listen-fd", "3"], [], ["--", "--upgrade", "--listen-fd", "3"]],
];

Deno.test("A new process gets all arguments of the old one, but its own sockets, before those that are no flags", () => {
  const sockets = [{ fd: 5, tls: false }, { fd: 6, tls: true }];
  for (const [args, kept, behind = []] of CASES) {
    assertEquals(argsFor(args, sockets), [...kept, ...SOCKETS, ...behind], args.join(" "));
  }
});
