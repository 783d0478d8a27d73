/**
 * A small IRC server: channels with topics, and private messages, for ordinary clients. It has no operators and no
 * modes.
 *
 * Run it with a port, 6667 by default: `deno run -A examples/irc.ts 6667`. Try it with an IRC client, or by hand:
 *
 * ```text
 * $ nc 127.0.0.1 6667
 * NICK ada
 * USER ada 0 * :Ada Lovelace
 * :irc.shouty 001 ada :Welcome, ada!ada@user-1
 * ...
 * JOIN #math
 * :ada!ada@user-1 JOIN #math
 * :irc.shouty 331 ada #math :No topic
 * :irc.shouty 353 ada = #math :ada
 * :irc.shouty 366 ada #math :End of names
 * ```
 *
 * @module
 */

import { type Conn, type ConnHandler, formatAddr, serveConnections, type ServeOptions, type Server } from "@x/shouty";

const NAME = "irc.shouty";
const NICK = /^[a-z[\]\\`_^{|}][\w[\]\\`^{|}-]{0,29}$/i;
const CHANNEL = /^#[!-+\--~]{1,49}$/;
const SUPPORTED = "CASEMAPPING=ascii CHANTYPES=# PREFIX= NICKLEN=30 CHANNELLEN=50";
const MAX_CHANNELS = 20; // Of each member.
const PING_MS = 60_000; // A client gets a PING after this silence, and is closed after the same once more.
const EARLY = /^(CAP|NICK|USER|PING|PONG|)$/;

type Phase = "new" | "negotiating" | "welcome";
/** What the server knows about a client: its `conn.data`. */
export type Member = { nick: string; user: string; realName: string; phase: Phase; channels: Set<Channel> };
/** A channel, which exists while it has members. */
export type Channel = { name: string; topic: string; members: Set<Client> };
type Client = Conn<Member>;
/** Clients and channels by their names in lower case. */
type Network = { clients: Map<string, Client>; channels: Map<string, Channel> };

/** Creates a network without members. */
export function ircNetwork(): ConnHandler<Member> {
  const network: Network = { clients: new Map(), channels: new Map() };
  return async (me) => {
    me.setDeadline(30_000, "registration");
    let why: string | undefined;
    try {
      for (let line; why === undefined && (line = await nextLine(me)) !== null;) {
        const [verb = "", ...params] = parse(line);
        if (/^quit$/i.test(verb)) why = params[0] ?? "Client quit";
        // Awaited: the next command of a client that does not read its replies has to wait.
        else for (const reply of answer(network, me, verb.toUpperCase(), params) ?? []) await send(me, reply);
      }
      if (why !== undefined) me.close({ lastWord: `ERROR :Closing Link: ${why}\r`, detail: why });
    } finally {
      tell(neighbours(me), me, `QUIT :${why ?? me.ending}`, me);
      for (const channel of me.data.channels) leave(network, me, channel);
      network.clients.delete(me.data.nick.toLowerCase());
    }
  };
}

/** Reads a line. A silent client gets a PING, and has to leave if it stays silent. */
async function nextLine(me: Client): Promise<string | null> {
  const line = await me.readLine({ timeout: PING_MS }).catch(() => undefined);
  if (line !== undefined) return line;
  await send(me, `PING :${NAME}`);
  return await me.readLine({ timeout: PING_MS }).catch(() => "QUIT :Ping timeout");
}

/** Cuts a line into its command and parameters; drops tags and prefix. */
function parse(line: string): string[] {
  // Some clients end a line at a lone CR, with which a member could forge messages to them.
  const text = line.replaceAll(/[\r\0]/g, " ").replace(/^([@:][^ ]* +)+/, "");
  // Copied: a line is a slice of the block that it came in, and would keep the whole block in memory.
  const copy = new TextDecoder().decode(new TextEncoder().encode(text));
  return Array.from(copy.matchAll(/(?<= ):(.*)|[^ ]+/gs), ([word, last]) => last ?? word);
}

/** Writes a line, of 512 bytes at most. Behind the number of a numeric comes its receiver. */
function send(to: Client, line: string): Promise<void> {
  const text = line.replace(/^\d{3}/, (number) => `:${NAME} ${number} ${to.data.nick || "*"}`);
  const { read } = new TextEncoder().encodeInto(text, new Uint8Array(510));
  return to.write(`${text.slice(0, read)}\r\n`);
}

/** Sends without waiting: a member that does not read delays no other, and `maxQueuedBytes` bounds what it is owed. */
function tell(members: Iterable<Client>, from: Client, message: string, except?: Client): void {
  for (const member of members) if (member !== except) send(member, `:${mask(from)} ${message}`);
}

/** How others see a client: without its address. */
function mask({ id, data: { nick, user } }: Client): string {
  return `${nick}!${user}@user-${id}`;
}

/** What WHO says about a client. */
function rowOf({ id, data: { nick, user, realName } }: Client): string {
  return `${user} user-${id} ${NAME} ${nick} H :0 ${realName}`;
}

/** The client, and all with which it shares a channel. */
function neighbours(me: Client): Set<Client> {
  return new Set([me, ...[...me.data.channels].flatMap(({ members }) => [...members])]);
}

/** A command of a client, and the channel that its first parameter names, which is empty if there is none. */
type Order = { network: Network; me: Client; verb: string; params: string[]; channel: Channel };

/** What carries out each command; returns the replies: messages, or numerics without their receiver. */
const COMMANDS = new Map(Object.entries<(order: Order) => string[] | void>({
  CAP: ({ me, params: [what, text = ""] }) => {
    if (me.data.phase !== "welcome") me.data.phase = what === "END" ? "new" : "negotiating";
    return what === "END" ? welcome(me) : [`:${NAME} CAP * ${what === "REQ" ? `NAK :${text}` : "LS :"}`];
  },
  NICK: ({ network, me, params: [nick] }) => setNick(network, me, nick),
  USER: ({ me, params: [name, , , realName = ""] }) => {
    if (me.data.phase === "welcome") return ["462 :Already registered"];
    Object.assign(me.data, { user: name.replaceAll(/[^\w.-]/g, "").slice(0, 10) || "user", realName });
    return welcome(me);
  },
  PING: ({ params: [text] }) => [`:${NAME} PONG ${NAME} :${text}`],
  JOIN: ({ network, me, params: [names] }) => names.split(",").flatMap((name) => join(network, me, name)),
  PART: (
    { network, me, params: [name, text = ""], channel },
  ) => (tell(channel.members, me, `PART ${name} :${text}`), leave(network, me, channel)),
  TOPIC: ({ me, params: [name, text], channel }) => {
    if (text === undefined) return [channel.topic ? `332 ${name} :${channel.topic}` : `331 ${name} :No topic`];
    channel.topic = text;
    tell(channel.members, me, `TOPIC ${name} :${text}`);
  },
  PRIVMSG: deliver,
  NOTICE: deliver,
  NAMES: ({ params: [name], channel: { members } }) =>
    Array.from(members, ({ data }) => `353 = ${name} :${data.nick}`).concat(`366 ${name} :End of names`),
  WHO: ({ params: [name], channel: { members } }) =>
    Array.from(members, (member) => `352 ${name} ${rowOf(member)}`).concat(`315 ${name} :End of list`),
  LIST: ({ network: { channels } }) =>
    Array.from(channels.values(), (c) => `322 ${c.name} ${c.members.size} :${c.topic}`).concat("323 :End"),
  MODE: ({ params: [name] }) => [name.startsWith("#") ? `324 ${name} +` : "221 +"],
}));

/** Carries out a command, if its client may give it; returns the replies. */
function answer(network: Network, me: Client, verb: string, [name = "", ...rest]: string[]): string[] | void {
  const channel = network.channels.get(name.toLowerCase()) ?? { name, topic: "", members: new Set() };
  if (me.data.phase !== "welcome" && !EARLY.test(verb)) return ["451 :Register first"];
  if (/^(PART|TOPIC)$/.test(verb) && !channel.members.has(me)) return [`442 ${name} :Not on that channel`];
  const run = COMMANDS.get(verb) ?? (() => EARLY.test(verb) ? [] : [`421 ${verb} :Unknown command`]);
  return run({ network, me, verb, params: [name, ...rest], channel });
}

/** Sends a message to the other members of a channel, or to one client. */
function deliver({ network, me, verb, params: [name, text = ""], channel: { members } }: Order): string[] {
  const peer = network.clients.get(name.toLowerCase());
  const to = members.has(me) ? [...members] : peer?.data.phase === "welcome" ? [peer] : [];
  tell(to, me, `${verb} ${name} :${text}`, members.has(me) ? me : undefined);
  return to.length > 0 || verb === "NOTICE" ? [] : [`401 ${name} :No such nick, or not on that channel`];
}

function setNick(network: Network, me: Client, nick: string): string[] {
  if (!NICK.test(nick)) return [`432 ${nick} :Not a nickname`];
  if ((network.clients.get(nick.toLowerCase()) ?? me) !== me) return [`433 ${nick} :Nickname is in use`];
  if (me.data.phase === "welcome") tell(neighbours(me), me, `NICK :${nick}`);
  network.clients.delete(me.data.nick.toLowerCase());
  network.clients.set(nick.toLowerCase(), me);
  me.data.nick = nick;
  return welcome(me);
}

function welcome(me: Client): string[] {
  if (me.data.phase !== "new" || me.data.nick === "" || me.data.user === "") return [];
  me.data.phase = "welcome";
  me.setDeadline(Infinity);
  return [`001 :Welcome, ${mask(me)}`, `004 ${NAME} shouty 0 0`, `005 ${SUPPORTED} :are supported`, "422 :No news"];
}

function join(network: Network, me: Client, name: string): string[] {
  if (!CHANNEL.test(name)) return [`403 ${name} :Not a channel`];
  if (me.data.channels.size === MAX_CHANNELS) return [`405 ${name} :Too many channels`];
  const channel = network.channels.get(name.toLowerCase()) ?? { name, topic: "", members: new Set() };
  if (channel.members.has(me)) return [];
  network.channels.set(name.toLowerCase(), channel);
  me.data.channels.add(channel);
  channel.members.add(me);
  tell(channel.members, me, `JOIN ${channel.name}`);
  return ["TOPIC", "NAMES"].flatMap((verb) => answer(network, me, verb, [name]) ?? []);
}

function leave(network: Network, me: Client, channel: Channel): void {
  channel.members.delete(me);
  me.data.channels.delete(channel);
  if (channel.members.size === 0) network.channels.delete(channel.name.toLowerCase());
}

/** Serves a network on loopback; the options go to the server. */
export function serveIrc(options: Omit<ServeOptions, "data"> = {}): Server<Member> {
  const data = (): Member => ({ nick: "", user: "", realName: "", phase: "new", channels: new Set() });
  const limits = { maxConnections: 1000, maxLineBytes: 510, maxQueuedBytes: 256 * 1024, maxLinesPerSecond: 50 };
  const framing = { lineEnd: "any", onLongLine: "discard" } as const;
  // Under "any" the server ends its lines with LF alone, so each brings its CR.
  const lastWords = (reason: string) =>
    reason === "line-too-long" ? `:${NAME} 417 * :Line too long\r` : `ERROR :Closing Link: ${reason}\r`;
  return serveConnections({ hostname: "127.0.0.1", ...limits, framing, lastWords, ...options, data }, ircNetwork());
}

if (import.meta.main) {
  const { addr } = serveIrc({ port: Number(Deno.args[0] ?? 6667) });
  console.error(`listening on ${formatAddr(addr)}`);
}
