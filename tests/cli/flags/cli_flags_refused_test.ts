import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { reasonOf } from "../../../cli/system/errors.ts";
import { SERVE } from "../../../cli/flags/flags.ts";
import { parse } from "../../../cli/line/parse.ts";
import { complaint, values } from "../../kit/flags.ts";

Deno.test("A wrong value is named with its flag and what is allowed", () => {
  const port = "expected a whole number from 0 to 65535";
  for (const value of ["70000", "65536", "abc", "1.5", "1e3", "0x10", "+1", " 1", "off", "1KiB"]) {
    assertEquals(complaint(["--port", value]), `cannot use --port ${JSON.stringify(value)}: ${port}`);
  }
  assertEquals(complaint(["--port", "-1"]), `cannot use --port "-1": ${port}`);
  assertEquals(complaint(["--port=-1"]), `cannot use --port "-1": ${port}`);
  assertEquals(complaint(["--port", "1\n2"]), `cannot use --port "1\\n2": ${port}`);
  assertEquals(complaint([], { SHOUTY_PORT: "abc" }), `cannot use SHOUTY_PORT "abc": ${port}`);
});

Deno.test("A value that is out of range or in no known unit is refused", () => {
  for (const time of ["0s", "0ms", "10", "10 s", "1.5s", "1d", "S", "-1s", "2147483648ms", "600h", "Infinity"]) {
    assertMatch(
      complaint(["--idle-timeout", time]),
      /^cannot use --idle-timeout ".+": expected a time such as .+, or off$/,
    );
  }
  for (const size of ["0", "1KB", "64k", "1kib", "257MiB", "off", "9007199254740993"]) {
    assertMatch(
      complaint(["--max-line-bytes", size]),
      /^cannot use --max-line-bytes ".+": expected a size .+ to 268435456$/,
    );
  }
  for (const number of ["0", "9007199254740992", "99999999999999999999"]) {
    const expected = "expected a whole number from 1 to 9007199254740991, or off";
    assertEquals(complaint(["--max-connections", number]), `cannot use --max-connections "${number}": ${expected}`);
  }
  assertMatch(
    complaint(["--max-connection-bytes", "8388608GiB"]),
    /"8388608GiB": expected a size .+, from 1 to 9007199254740991, or off$/,
  );
  assertEquals(values("--max-connections 9007199254740991").maxConnections, Number.MAX_SAFE_INTEGER);
  assertMatch(complaint(["--drain", "now"]), /^cannot use --drain "now": expected linger or finish$/);
  assertMatch(complaint(["--log-level", "INFO"]), /^cannot use .+: expected debug, info, warn or error$/);
  for (const host of ["a b", "a/b", "host:80", "*", "é"]) {
    assertMatch(complaint(["--hostname", host]), /^cannot use --hostname ".+": expected a host name or an IP address$/);
  }
});

Deno.test("A missing value is not an empty one that passes", () => {
  const port = "cannot use --port without a value: expected a whole number from 0 to 65535";
  for (
    const args of [["--port"], ["--port="], ["--port", ""], ["--port", "--drain", "finish"], ["--port", "--", "1"]]
  ) {
    assertEquals(complaint(args), port);
  }
  assertMatch(complaint(["--hostname", ""]), /^cannot use --hostname without a value/);
  assertMatch(complaint([], { SHOUTY_DRAIN: "" }), /^cannot use SHOUTY_DRAIN without a value/);
});

Deno.test("A flag that is given twice is refused, whatever its values", () => {
  assertEquals(complaint(["--port", "1", "--port=1"]), `cannot use --port twice, with "1" and "1": expected it once`);
  assertEquals(complaint(["--port", "1", "--port"]), `cannot use --port twice, with "1" and "": expected it once`);
});

Deno.test("What is no flag is refused, with the flag that it may have been, and without its value", () => {
  const meant = {
    ...{ "--prot": "--port", "--prot=secret": "--port", "--port.x=1": "--port", "--toString": undefined },
    ...{ "--no-port": "--port", "--no-port=1": "--port", "--no-telnet": "--telnet off", "--__proto__=1": undefined },
    ...{ "-p": undefined, "-1": undefined, "---port": "--port", "--=1": undefined, "--PORT=1": "--port" },
    ...{
      "--maxAge=1s": "--max-age",
      "--max_age": "--max-age",
      "--max-conn": "--max-connection-bytes",
      "-port": "--port",
    },
    ...{ "--timeout": undefined, "--tls-certificate": "--tls-cert", "--hlep": "--help", "--listen": "--listen-fd" },
  };
  for (const [flag, other] of Object.entries(meant)) {
    const hint = other === undefined ? "see shouty --help" : `did you mean ${other}?`;
    assertEquals(complaint([flag]), `unknown flag ${JSON.stringify(flag.split("=")[0])}: ${hint}`);
  }
});

Deno.test("A flag's name without its dashes, or with brackets half open, is taken for what it is", () => {
  assertStringIncludes(complaint(["port", "9000"]), 'cannot use argument "port"');
  for (const host of ["[::1", "::1]", "[my-host]"]) {
    assertStringIncludes(complaint(["--hostname", host]), `cannot use --hostname "${host}"`);
  }
});

Deno.test("What parseArgs keeps for itself is no flag", () => {
  for (const arg of ["--_", "--_=x", "-_", "-x_", "--no-port"]) {
    assertStringIncludes(complaint([arg]), `unknown flag "${arg.split("=")[0]}"`);
  }
  assertEquals(parse(SERVE, ["--_", "--help"]).ask, "help");
});

Deno.test("The server takes no arguments but flags", () => {
  for (const args of [["stray"], ["--port", "1", "stray"], ["--", "stray"], ["stray", "--", "--help"]]) {
    assertEquals(complaint(args), `cannot use argument "stray": expected only flags`);
  }
  assertEquals(complaint([""]), `cannot use argument "": expected only flags`);
});

Deno.test("An error reads as a few words at the end of a line", () => {
  assertEquals(reasonOf(new Deno.errors.AddrInUse("Address already in use (os error 98)")), "address already in use");
  assertEquals(reasonOf(new Error("Too many open files (os error 24)")), "too many open files");
  assertEquals(reasonOf(new Error("TLS is\nno  transport\n")), "TLS is no transport");
  assertEquals(reasonOf(new TypeError()), "TypeError");
  const { NotFound } = Deno.errors;
  for (const text of ["No such file or directory", "The system cannot find the file specified."]) {
    assertEquals(reasonOf(new NotFound(`${text} (os error 2): open 'a'`)), "no such file or directory");
  }
  assertEquals(
    reasonOf(new NotFound("Failed to spawn 'a': entity not found")),
    "failed to spawn 'a': entity not found",
  );
  assertEquals(reasonOf(new Error("No such host is known. (os error 11001)")), "no such host is known");
  assertEquals(reasonOf("why not"), "why not");
});
