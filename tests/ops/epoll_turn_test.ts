import { assertEquals, assertGreater } from "@std/assert";
import type { Listener, Transport } from "@x/shouty";
import { listenEpoll } from "@x/shouty/ops";
import { socketsTurn } from "../../internal/time/turns.ts";
import { LOOPBACK, pair, RawPeer, readText, test } from "../kit/epoll_peers.ts";

/** Connects peers, and returns them with the other ends of their connections. */
async function connect(listener: Listener, count: number): Promise<{ peers: RawPeer[]; ends: Transport[] }> {
  const [peers, ends]: [RawPeer[], Transport[]] = [[], []];
  for (let i = 0; i < count; i++) {
    peers.push(new RawPeer((listener.addr as Deno.NetAddr).port));
    ends.push(await listener.accept());
  }
  // No event is left of the connecting.
  await socketsTurn();
  return { peers, ends };
}

/** Has all peers send something, and calls `answer` for each end, in the same turn, when that has come. */
async function inOneTurn(
  { peers, ends }: { peers: RawPeer[]; ends: Transport[] },
  answer: (end: Transport, index: number) => unknown,
): Promise<void> {
  const answering = ends.map(async (end, index) => {
    await readText(end);
    await answer(end, index);
  });
  for (const peer of peers) peer.send("?");
  // The kernel may take a moment, in which the event loop must not ask.
  while (!peers.every((peer) => peer.arrived));
  await Promise.all(answering);
}

/** How often to ask for what the kernel may take a moment to deliver. */
const TRIES = 100_000;

const WORD = new TextEncoder().encode("!");

test("answers of one turn are sent together on epoll, sixteen at a time and the rest when it ends", async () => {
  const listener = listenEpoll(LOOPBACK);
  const all = await connect(listener, 20);
  let received = 0;
  const receive = (atLeast: number) => {
    let tries = TRIES;
    do {
      for (const peer of all.peers) received += peer.receive(10);
    } while (received < atLeast && --tries > 0);
  };
  const seen: number[] = [];
  await inOneTurn(all, (end) => {
    const written = end.write(WORD);
    receive(seen.length < 15 ? 0 : 16);
    seen.push(received);
    return written;
  });
  assertEquals(seen, [...Array<number>(15).fill(0), 16, 16, 16, 16, 16]);
  receive(20);
  assertEquals(received, 20);
  for (const end of [...all.ends, ...all.peers, listener]) end.close();
});

test("an answer that no others follow is sent at once on epoll", async () => {
  const listener = listenEpoll(LOOPBACK);
  const all = await connect(listener, 1);
  let received = 0;
  await inOneTurn(all, (end) => {
    end.write(WORD);
    for (let tries = TRIES; received === 0 && tries > 0; tries--) received = all.peers[0].receive(10);
  });
  assertEquals(received, 1);
  for (const end of [...all.ends, ...all.peers, listener]) end.close();
});

test("what waits for the end of a turn on epoll goes out before its connection is closed, or ended", async () => {
  const listener = listenEpoll(LOOPBACK);
  const all = await connect(listener, 2);
  const [closing, closed] = await pair(listener);
  const [ending, ended] = await pair(listener);
  await inOneTurn(all, (_, index) => {
    const end = [closed, ended][index];
    end.write(WORD);
    if (index === 0) end.close();
    else end.closeWrite();
  });
  assertEquals([await closing.readAll(), await ending.readAll()], ["!", "!"]);
  for (const end of [...all.ends, ...all.peers, listener, closing, ending, ended]) end.close();
});

test("an answer for which there is no room at the end of its turn on epoll waits, and has made no progress", async () => {
  const listener = listenEpoll(LOOPBACK);
  const all = await connect(listener, 2);
  const [client, full] = await pair(listener);
  const block = new Uint8Array(64 * 1024);
  let written = 0;
  for (let count = block.length; count === block.length; written += count) count = await full.write(block);
  // The client's side of the kernel has taken most of that, before anything waited.
  await socketsTurn();
  let writing: Promise<number> | undefined;
  await inOneTurn(all, (_, index) => void (index === 0 && (writing = full.write(WORD))));
  await socketsTurn();
  assertEquals(full.progress!(), 0);
  for (let read = 0; read < written;) read += (await client.read())!.length;
  assertEquals(await writing, 1);
  assertGreater(full.progress!(), 0);
  for (const end of [...all.ends, ...all.peers, listener, client, full]) end.close();
});
