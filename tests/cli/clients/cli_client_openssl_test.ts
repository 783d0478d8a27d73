import { assertEquals, assertMatch } from "@std/assert";
import { test } from "../../kit/bounded.ts";
import { startCommand, Subprocess } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { opensslServer, test as opensslTest } from "../../kit/foreign/openssl.ts";
import { connect, withPem, withServerPem } from "../../kit/tls/connect_command.ts";

const NO_SOCAT = await missingProgram("socat", "-V");

opensslTest("connect --tls talks with OpenSSL's server, and shows it a certificate", async () => {
  await using files = await withPem();
  await using own = await withServerPem();
  const identity = ["-cert", own("cert.pem"), "-key", own("key.pem"), "-rev", "-naccept", "1"];
  for (const version of ["-tls1_2", "-tls1_3"]) {
    await using server = await opensslServer(
      ...identity,
      version,
      "-Verify",
      "1",
      "-verify_return_error",
      "-CAfile",
      own("ca.pem"),
    );
    const tls = ["--tls", "--tls-ca", files("ca.pem"), "--tls-cert", files("cert.pem"), "--tls-key", files("key.pem")];
    const outcome = await connect(`localhost:${server.port}`, "hello\nthere\n", ...tls);
    assertEquals(outcome, { code: 0, stdout: "olleh\nereht\n", stderr: "" });
  }
});

opensslTest("connect tells a TLS connection that was cut off from one that has ended", async () => {
  await using files = await withPem();
  await using own = await withServerPem();
  await using server = await opensslServer("-cert", own("cert.pem"), "-key", own("key.pem"), "-rev");
  const args = ["connect", "--tls", `localhost:${server.port}`, "--tls-ca", files("ca.pem")];
  await using client = startCommand(args, { permissions: ["--allow-net", "--allow-read"] });
  await client.type("hello\n");
  await client.stdoutMatch(/^olleh\n$/);
  server.signal("SIGKILL");
  const { code, stderr } = await client.outcome();
  assertEquals(code, 1);
  const lost = `shouty: lost the connection to localhost:${server.port}: `;
  assertMatch(stderr, new RegExp(`^${lost}the peer ended the connection without TLS's close_notify\n$`));
});

opensslTest("connect suggests --tls if OpenSSL closes without a reply to plain text", async () => {
  await using own = await withServerPem();
  await using server = await opensslServer("-cert", own("cert.pem"), "-key", own("key.pem"));
  const { code, stdout, stderr } = await connect(`127.0.0.1:${server.port}`, "hello there\n");
  const said = "has closed the connection without a reply; if it speaks TLS, use --tls";
  assertEquals([code, stdout, stderr], [0, "", `shouty: 127.0.0.1:${server.port} ${said}\n`]);
});

test(
  "connect --tls and socat take each other's bytes",
  async () => {
    await using files = await withPem();
    await using own = await withServerPem();
    const listen = `OPENSSL-LISTEN:0,bind=127.0.0.1,cert=${own("cert.pem")},key=${own("key.pem")},verify=0`;
    await using server = new Subprocess("socat", ["-d", "-d", listen, "EXEC:cat"]);
    const [, port] = await server.stderrMatch(/listening on .*:(\d+)/);
    const input = "0123456789abcde\n".repeat(100_000);
    const { code, stdout, stderr } = await connect(`localhost:${port}`, input, "--tls", "--tls-ca", files("ca.pem"));
    assertEquals([code, stderr, stdout === input], [0, "", true]);
  },
  60,
  NO_SOCAT,
);
