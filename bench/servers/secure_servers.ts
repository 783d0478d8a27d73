// Servers that are reached in other ways: on a Unix socket, under TLS, behind PROXY, at STARTTLS, and beside bad clients.

import { PUBLIC_FLAGS } from "../../tools/chaos/victim.ts";
import { Authority, makeIdentity } from "../../tests/kit/certificates.ts";
import { command, DENO, type Protocol, ROOMY_MS, type ServerSpec } from "./servers.ts";

const PLAIN_MS = "10000";
const EPOLL = ["--engine", "epoll"];
const ENGINES: [suffix: string, title: string, permissions: string[], flags: string[]][] = [
  ["", "shouty's command with --engine epoll", ["--allow-ffi"], EPOLL],
  ["-deno", "shouty's command on Deno's sockets", [], []],
];

/** Makes the certificates with which servers and load speak TLS: of P-256, whose signatures are the fastest. */
export async function writeFiles(folder: string): Promise<void> {
  const server = makeIdentity("localhost");
  const authority = new Authority("bench clients");
  const client = makeIdentity("bench client", { by: authority, usage: "client" });
  await Deno.writeTextFile(`${folder}/server.pem`, server.cert);
  await Deno.writeTextFile(`${folder}/server.key`, server.key);
  await Deno.writeTextFile(`${folder}/authority.pem`, authority.cert);
  await Deno.writeTextFile(`${folder}/client.pem`, client.cert + client.key);
}

/** The load generator's options for a server: where it listens, and what it speaks. */
export function wayTo(protocol: Protocol | undefined, port: number, socket: string, files: string): string[] {
  const tcp = ["--port", `${port}`];
  const tls = [...tcp, "--tls", "1"];
  switch (protocol) {
    case "unix":
      return ["--unix", socket];
    case "tls":
      return tls;
    case "tls-unix":
      return ["--unix", socket, "--tls", "1"];
    case "tls-proxy":
      return [...tls, "--proxy", "1"];
    case "tls-client":
      return [...tls, "--cert", `${files}/client.pem`];
    case "starttls":
      return [...tls, "--starttls", "1"];
    default:
      return tcp;
  }
}

/** Tells whether servers of the protocol make a Unix socket. */
export function onUnixSocket(protocol: Protocol | undefined): boolean {
  return protocol === "unix" || protocol === "tls-unix";
}

/** Tells whether the load has to be built with OpenSSL. */
export function needsTls(protocol: Protocol | undefined): boolean {
  return protocol !== undefined && /tls/.test(protocol);
}

/** The server's flags besides those of its engine. */
function flagsOf(protocol: Protocol, out: string, files: string): string[] {
  const tls = needsTls(protocol) ? ["--tls-cert", `${files}/server.pem`, "--tls-key", `${files}/server.key`] : [];
  const unix = onUnixSocket(protocol) ? ["--unix", `${out}.sock`] : [];
  const proxy = protocol === "tls-proxy" ? ["--proxy-protocol", "127.0.0.0/8"] : [];
  const client = protocol === "tls-client" ? ["--tls-client-ca", `${files}/authority.pem`] : [];
  return [...tls, ...unix, ...proxy, ...client, ...(protocol === "riot" ? PUBLIC_FLAGS : [])];
}

/** Shouty's command for a protocol, on both engines; `epoll` has no Unix sockets. */
function shouty(protocol: Protocol): ServerSpec[] {
  return ENGINES.filter(([, , , flags]) => !onUnixSocket(protocol) || flags !== EPOLL).map((engine) => {
    const [suffix, title, permissions, flags] = engine;
    const files = needsTls(protocol) || onUnixSocket(protocol) ? ["--allow-read", "--allow-write", "--allow-sys"] : [];
    const base = command(`${protocol}${suffix}`, `${title}: ${protocol}`, [...permissions, ...files], flags);
    return {
      ...base,
      protocol,
      command: (source, out, roomy, files) => {
        // The Unix socket takes the place of the address.
        const plain = base.command(source, out, roomy && protocol !== "riot", files);
        const address = plain.indexOf("--hostname");
        const kept = onUnixSocket(protocol) ? plain.toSpliced(address, 4) : plain;
        return [...kept, ...flagsOf(protocol, out, files)];
      },
    };
  });
}

function startTls(engine: "deno" | "epoll"): ServerSpec {
  return {
    name: engine === "epoll" ? "starttls" : "starttls-deno",
    title: `conn.startTls in a conversation, ${engine === "epoll" ? "on epoll" : "on Deno's sockets"}`,
    protocol: "starttls",
    tool: [DENO, "--version"],
    source: "bench/peers/shouty.ts",
    command: (source, _, roomy, files) => [
      ...[DENO, "run", "--allow-net", "--allow-read", "--allow-ffi", source, "starttls", engine, "0"],
      ...[roomy ? ROOMY_MS : PLAIN_MS, `${files}/server.pem`, `${files}/server.key`],
    ],
  };
}

/** A peer, which takes an address, a time of silence, and the files of TLS. */
function peer(protocol: Protocol, name: "go" | "node" | "bun", title: string): ServerSpec {
  const source = { go: "bench/peers/article.go", node: "bench/peers/node.mjs", bun: "bench/peers/bun.ts" }[name];
  return {
    name: `${protocol}-${name}`,
    title,
    protocol,
    tool: name === "go" ? ["go", "version"] : [name, "--version"],
    source,
    ...(name === "go" ? { build: (source: string, out: string) => ["go", "build", "-o", out, source] } : {}),
    command: (source, out, roomy, files) => [
      ...(name === "go" ? [out] : [name, source]),
      ...[onUnixSocket(protocol) ? `${out}.sock` : "0", roomy ? ROOMY_MS : PLAIN_MS],
      ...(needsTls(protocol) ? [`${files}/server.pem`, `${files}/server.key`] : []),
      ...(protocol === "tls-client" ? [`${files}/authority.pem`] : []),
    ],
  };
}

/** Every such server, in the order of the table. Go and Node.js have no PROXY headers, and Bun no such STARTTLS. */
export const SECURE_SERVERS: ServerSpec[] = [
  ...shouty("unix"),
  peer("unix", "go", "the article's server in Go, on a Unix socket"),
  peer("unix", "node", "Node.js net, on a Unix socket"),
  peer("unix", "bun", "Bun.listen, on a Unix socket"),
  {
    name: "unix-raw",
    title: "lines by hand on Deno.listen, on a Unix socket",
    protocol: "unix",
    tool: [DENO, "--version"],
    source: "bench/peers/raw.ts",
    command: (source, out) => [DENO, "run", "--allow-net", "--allow-read", "--allow-write", source, `${out}.sock`],
  },
  ...shouty("tls"),
  peer("tls", "go", "the article's server in Go, with crypto/tls"),
  peer("tls", "node", "Node.js tls"),
  peer("tls", "bun", "Bun.listen with tls"),
  ...shouty("tls-proxy"),
  ...shouty("tls-unix"),
  peer("tls-unix", "go", "the article's server in Go, with crypto/tls on a Unix socket"),
  ...shouty("tls-client"),
  peer("tls-client", "go", "the article's server in Go, with crypto/tls and client certificates"),
  peer("tls-client", "node", "Node.js tls with client certificates"),
  startTls("epoll"),
  startTls("deno"),
  ...shouty("riot"),
];
