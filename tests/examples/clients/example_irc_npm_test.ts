/** The IRC server with a client of another make: irc-framework, which bots and web clients are built on. */

import { assertEquals } from "@std/assert";
import { serveIrc } from "../../../examples/irc.ts";
import { test } from "../../kit/bounded.ts";
import { type Emitter, load, next } from "../../kit/foreign/npm.ts";
import { TestServer } from "../../kit/server.ts";

/** The part of irc-framework's client that the tests use. */
interface IrcClient extends Emitter {
  connect(options: Record<string, unknown>): void;
  join(channel: string): void;
  say(target: string, text: string): void;
  notice(target: string, text: string): void;
  setTopic(channel: string, topic: string): void;
  changeNick(nick: string): void;
  list(): void;
  who(channel: string): void;
  ping(text: string): void;
  part(channel: string, why: string): void;
  quit(why: string): void;
}

type Event = Record<string, string> & { users: Record<string, string>[] };

const { module, missing } = await load<{ Client: new () => IrcClient }>("npm:irc-framework@4.14.0");

test(
  "irc serves irc-framework: names, topics, messages, lists and departures",
  async () => {
    await using t = new TestServer(serveIrc, {});
    const [ada, bob] = [await connect(t, "ada"), await connect(t, "bob")];
    ada.join("#math");
    const { users } = await next<Event>(ada, "userlist");
    assertEquals(users.map(({ nick }) => nick), ["ada"]);

    const [joined, listed] = [next<Event>(ada, "join"), next<Event>(bob, "userlist")];
    bob.join("#math");
    assertEquals([(await joined).nick, (await joined).hostname], ["bob", "user-2"]);
    assertEquals((await listed).users.map(({ nick }) => nick).sort(), ["ada", "bob"]);

    const topic = next<Event>(bob, "topic");
    ada.setTopic("#math", "Numbers: all of them");
    assertEquals((await topic).topic, "Numbers: all of them");

    for (const [type, text] of [["privmsg", "Hello, #math! ñ 日"], ["notice", ":)"], ["action", "waves"]]) {
      const heard = next<Event>(bob, type);
      if (type === "notice") ada.notice("#math", text);
      else ada.say("#math", type === "action" ? `\x01ACTION ${text}\x01` : text);
      const { nick, target, message } = await heard;
      assertEquals([nick, target, message], ["ada", "#math", text]);
    }

    const secret = next<Event>(ada, "privmsg");
    bob.say("ada", "a secret");
    assertEquals([(await secret).nick, (await secret).target, (await secret).message], ["bob", "ada", "a secret"]);

    const channels = next<Record<string, unknown>[]>(bob, "channel list");
    bob.list();
    assertEquals((await channels).map(({ channel, num_users, topic }) => [channel, num_users, topic]), [
      ["#math", 2, "Numbers: all of them"],
    ]);
    const members = next<Event>(bob, "wholist");
    bob.who("#math");
    assertEquals((await members).users.map(({ nick, real_name }) => [nick, real_name]), [
      ["ada", "The real ada"],
      ["bob", "The real bob"],
    ]);

    const taken = next<Event>(bob, "nick in use");
    bob.changeNick("ADA");
    assertEquals((await taken).nick, "ADA");
    const renamed = next<Event>(ada, "nick");
    bob.changeNick("Bob|away");
    assertEquals([(await renamed).nick, (await renamed).new_nick], ["bob", "Bob|away"]);

    const pong = next<Event>(ada, "pong");
    ada.ping("are you there?");
    assertEquals((await pong).message, "are you there?");

    const parted = next<Event>(ada, "part");
    bob.part("#math", "Off to lunch");
    assertEquals([(await parted).nick, (await parted).message], ["Bob|away", "Off to lunch"]);
    bob.join("#math");
    await next(ada, "join");
    const gone = next<Event>(ada, "quit");
    await quit(bob, "Good night");
    assertEquals([(await gone).nick, (await gone).message], ["Bob|away", "Good night"]);
    await quit(ada, "");
    await t.closed(2);
  },
  60,
  missing,
);

test(
  "irc tells irc-framework in a shutdown why it closes the connection",
  async () => {
    await using t = new TestServer(serveIrc, {});
    const ada = await connect(t, "ada");
    const [error, closed] = [next<Event>(ada, "irc error"), next(ada, "close")];
    const stopping = t.server.shutdown({ drain: "finish" });
    assertEquals((await error).reason, "Closing Link: drained");
    await closed;
    assertEquals((await stopping).closed, { drained: 1 });
  },
  60,
  missing,
);

async function connect(t: TestServer, nick: string): Promise<IrcClient> {
  const client = new module.Client();
  const identity = { nick, username: nick, gecos: `The real ${nick}` };
  // Without its own timers and attempts to reconnect, which would outlast the test.
  const quiet = { auto_reconnect: false, ping_interval: 0, ping_timeout: 0 };
  client.connect({ host: "127.0.0.1", port: t.port, ...identity, ...quiet });
  await next(client, "registered");
  return client;
}

async function quit(client: IrcClient, why: string): Promise<void> {
  const closed = next(client, "close");
  client.quit(why);
  await closed;
}
