// The cases on other ways than TCP in plain text: Unix sockets, TLS, and a server beside bad clients.

import { riot } from "../../tools/chaos/crowd.ts";
import { talk } from "../../tools/chaos/good.ts";
import { BUSY, type Case, memory, onFresh, type Sample, type Setting, speed } from "./cases.ts";
import type { Protocol, ServerSpec } from "../servers/servers.ts";

const CHURN = { clients: 50, bytes: 16 };
/** A line and its LF fill the largest record of TLS. */
const RECORD = { clients: 8, pipeline: 1, bytes: 16 * 1024 - 1 };
const [GOOD, BAD] = [50, 500];
/** Minimum length in seconds of a run with good clients: each sends ten lines a second, and p99 needs some thousand. */
const LEAST_TALK = 4;

/** The cases of TLS on one way: lines one at a time, and full handshakes. */
function tlsOn(protocol: Protocol, title: string): Case[] {
  return [
    speed(`${protocol}-single`, `${title}: 50 clients, one 16-byte line at a time`, "lines", BUSY, protocol),
    speed(`${protocol}-churn`, `${title}: full handshake, one line, close; 50 at a time`, "churn", CHURN, protocol),
  ];
}

/** The p99 of good clients beside bad ones, as a multiple of what it is without. */
async function besideBad(setting: Setting, spec: ServerSpec): Promise<Sample> {
  const seconds = Math.max(LEAST_TALK, setting.seconds);
  const measure = async (port: number): Promise<Sample> => {
    await Promise.all([talk(port, GOOD, 2), riot(port, BAD, 2)]); // a first riot makes the server compile and grow
    const quiet = await p99(talk(port, GOOD, seconds));
    const [beside] = await Promise.all([p99(talk(port, GOOD, seconds)), riot(port, BAD, seconds)]);
    return { value: beside / quiet, p99: beside * 1000 };
  };
  return await onFresh(setting, spec, ({ port }) => setting.lab.onLoadCore(() => measure(port)));
}

async function p99(talking: ReturnType<typeof talk>): Promise<number> {
  const { replies, losses } = await talking;
  if (losses.length > 0) throw new Error(`good clients lost replies: ${losses[0]}`);
  const times = replies.map(({ took }) => took).sort((a, b) => a - b);
  return times[Math.floor(times.length * 0.99)];
}

/** Every such case, in the order of the table. */
export const SECURE_CASES: Case[] = [
  speed("unix-single", "Unix socket: 50 clients, one 16-byte line at a time", "lines", BUSY, "unix"),
  speed("unix-churn", "Unix socket: connect, one line, close; 50 at a time", "churn", CHURN, "unix"),
  ...tlsOn("tls", "TLS 1.3"),
  speed("tls-record", "TLS 1.3: 8 clients, one 16 KiB line at a time", "lines", RECORD, "tls"),
  speed("tls-resumed", "TLS 1.3: resumed handshake, one line, close", "churn", { ...CHURN, resume: 1 }, "tls"),
  ...tlsOn("tls-proxy", "TLS behind PROXY"),
  ...tlsOn("tls-unix", "TLS on a Unix socket"),
  ...tlsOn("tls-client", "TLS with client certificates"),
  ...tlsOn("starttls", "TLS after STARTTLS"),
  {
    name: "tls-memory",
    title: "memory per idle TLS connection, after a 100-byte exchange",
    unit: "bytes",
    protocol: "tls",
    rounds: 3,
    measure: memory,
  },
  {
    name: "riot",
    title: `p99 of ${GOOD} good clients beside ${BAD} bad ones ÷ without them`,
    unit: "×",
    protocol: "riot",
    measure: besideBad,
  },
];
