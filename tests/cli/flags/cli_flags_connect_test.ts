import { assert, assertEquals, assertThrows } from "@std/assert";
import { CommandError } from "../../../cli/system/errors.ts";
import { CONNECT } from "../../../cli/flags/flags.ts";
import { parse } from "../../../cli/line/parse.ts";

Deno.test("connect takes one address, of any kind", () => {
  const target = (args: string[]) => {
    const parsed = parse(CONNECT, args);
    assert(parsed.ask === undefined);
    return [parsed.operand, parsed.values.timeout];
  };
  assertEquals(target(["localhost:8080"]), [{ hostname: "localhost", port: 8080 }, 10_000]);
  assertEquals(target(["[::1]:1", "--timeout", "1s"]), [{ hostname: "::1", port: 1 }, 1000]);
  assertEquals(target(["--timeout=off", "10.0.0.1:65535"]), [{ hostname: "10.0.0.1", port: 65_535 }, Infinity]);
  assertEquals(target(["unix:/run/a b.sock"]), [{ path: "/run/a b.sock" }, 10_000]);
  assertEquals(target(["unix:8080"]), [{ path: "8080" }, 10_000]);
});

Deno.test("A switch without a value is on, and leaves what follows it to others", () => {
  const tls = (args: string[]) => {
    const parsed = parse(CONNECT, args);
    assert(parsed.ask === undefined);
    return [parsed.values.tls, parsed.values.timeout, parsed.operand];
  };
  const operand = { hostname: "h", port: 1 };
  assertEquals(tls(["h:1"]), [false, 10_000, operand]);
  for (const args of [["--tls", "h:1"], ["h:1", "--tls"], ["--tls=on", "h:1"], ["--tls", "on", "h:1"]]) {
    assertEquals(tls(args), [true, 10_000, operand]);
  }
  assertEquals(tls(["--tls", "off", "h:1"]), [false, 10_000, operand]);
  assertEquals(tls(["--tls", "--timeout", "1s", "h:1"]), [true, 1000, operand]);
  assertEquals(tls(["--tls", "--", "h:1"]), [true, 10_000, operand]);
  const refusal = (args: string[]) => assertThrows(() => parse(CONNECT, args), CommandError).message;
  assertEquals(refusal(["--tls=", "h:1"]), "cannot use --tls without a value: expected on or off");
  assertEquals(refusal(["--tls", "", "h:1"]), "cannot use --tls without a value: expected on or off");
  assertEquals(refusal(["--tls=yes", "h:1"]), 'cannot use --tls "yes": expected on or off');
  assertEquals(refusal(["--tls", "--tls", "h:1"]), 'cannot use --tls twice, with "on" and "on": expected it once');
});

Deno.test("connect refuses what is no address", () => {
  const refusal = (args: string[]) => assertThrows(() => parse(CONNECT, args), CommandError).message;
  const expected =
    "expected a host and a port, such as localhost:8080 or [::1]:8080, or unix: and the path of a socket";
  for (
    const address of [
      "localhost",
      "localhost:",
      ":80",
      "::1:80",
      "a b:80",
      "h:0",
      "h:65536",
      "h:-1",
      "[]:1",
      "[h:1",
      "unix:",
    ]
  ) {
    assertEquals(refusal([address]), `cannot use argument "${address}": ${expected}`);
  }
  assertEquals(refusal([]), `cannot use shouty connect without HOST:PORT|unix:PATH: ${expected}`);
  assertEquals(refusal(["h:1", "more"]), `cannot use argument "more": expected only one HOST:PORT|unix:PATH`);
  assertEquals(refusal(["h:1", "--port=1"]), 'unknown flag "--port": see shouty connect --help');
});
