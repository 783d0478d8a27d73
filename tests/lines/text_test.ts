import { assertEquals, assertThrows } from "@std/assert";
import { resolveFraming } from "../../internal/api/framing.ts";
import { begunCharacter, decode, decodeShort, encode } from "../../internal/lines/text.ts";
import { Blocks } from "../../internal/memory/blocks.ts";

const LATIN1 = resolveFraming({ encoding: "latin1" });

for (
  const [what, bytes] of Object.entries({
    "nothing": new Uint8Array(0),
    "ASCII": Uint8Array.from({ length: 128 }, (_, byte) => byte),
    "every byte": Uint8Array.from({ length: 256 }, (_, byte) => byte),
    "bytes that are UTF-8": new TextEncoder().encode("ä ñ 日 💡"),
    "bytes that are not UTF-8": Uint8Array.of(0x41, 0xff, 0xc3),
    "more bytes than a call can have arguments": new Uint8Array(10_000).fill(0xe9),
  })
) {
  Deno.test(`under latin1, ${what} become the characters of the same numbers, and the same bytes again`, () => {
    const text = decode(bytes, LATIN1)!;
    assertEquals(Array.from(text, (character) => character.charCodeAt(0)), Array.from(bytes));
    assertEquals(sent(text), bytes);
  });
}

Deno.test("under latin1, a line may be as long as a megabyte", () => {
  const text = decode(new Uint8Array(1_000_000).fill(0xe9), LATIN1);
  assertEquals(text === "é".repeat(1_000_000), true);
});

Deno.test("under latin1, a character beyond U+00FF is an error that names it", () => {
  for (const [text, name] of [["aĀ", "U+0100"], ["é💡", "U+1F4A1"]]) {
    assertThrows(() => encode(text, "latin1"), TypeError, name);
  }
});

Deno.test("text is cut before a character that goes on behind the cut, and invalid bytes are cut anywhere", () => {
  const characters = ["a", "\u00df", "\u0e01", "\u20ac", "\uffff", "\u{1f4a1}", "\u{10ffff}"];
  for (const character of characters) {
    const bytes = new TextEncoder().encode(`x${character}y`);
    const size = bytes.length - 2;
    const cuts = Array.from({ length: size + 1 }, (_, at) => begunCharacter(bytes, 0, 1 + at));
    assertEquals(cuts, [...Array(size).keys(), 0], character);
  }
  for (const invalid of [[0x61, 0x80, 0x61], [0xc3, 0xa9, 0x80], [0x80, 0x80, 0x80, 0x80, 0x80]]) {
    const bytes = Uint8Array.from(invalid);
    assertEquals(begunCharacter(bytes, 0, bytes.length - 1), 0, `${invalid}`);
  }
});

Deno.test("few bytes of ASCII are decoded as the decoder does it, wherever they are, and no others are", () => {
  for (let length = 0; length <= 40; length++) {
    const bytes = Uint8Array.from({ length: length + 4 }, (_, at) => at === 1 ? 0 : 0x7f - at);
    const text = decodeShort(bytes, 2, length + 2);
    assertEquals(text, length > 16 ? undefined : new TextDecoder().decode(bytes.subarray(2, length + 2)));
    // Bytes around them do not matter.
    bytes[1] = bytes[length + 2] = 0x80;
    assertEquals(decodeShort(bytes, 2, length + 2), text);
    for (let at = 2; at < length + 2; at++) {
      const [before] = bytes.slice(at, at + 1);
      bytes[at] = 0x80;
      assertEquals(decodeShort(bytes, 2, length + 2), undefined, `a byte beyond ASCII at ${at} of ${length}`);
      bytes[at] = before;
    }
  }
});

Deno.test("text of any length is encoded as the encoder does it, in pieces and behind other text", () => {
  for (let length = 0; length <= 40; length++) {
    for (const character of ["\0", "a", "\x7f", "\x80", "é", "日", "💡", "\ud800"]) {
      for (const text of [character.repeat(length), "a".repeat(length) + character, character + "b".repeat(length)]) {
        const blocks = new Blocks();
        blocks.add(Uint8Array.of(1, 2));
        for (const piece of [text, text]) {
          blocks.add(piece);
          blocks.first();
        }
        assertEquals(
          blocks.first(),
          Uint8Array.of(1, 2, ...new TextEncoder().encode(text), ...new TextEncoder().encode(text)),
        );
      }
    }
  }
});

Deno.test("text that the rest of a block has no room for is in two blocks, and whole", () => {
  for (let room = 0; room < 40; room++) {
    const blocks = new Blocks();
    blocks.add(new Uint8Array(4096 - room));
    blocks.add("abcdefghijklmnopqrstuvwxyz");
    let text = "";
    for (let block; (block = blocks.first()) !== undefined; blocks.left(block.length)) {
      text += new TextDecoder().decode(block);
    }
    assertEquals(text.replaceAll("\0", ""), "abcdefghijklmnopqrstuvwxyz", `${room} bytes of room`);
  }
});

/** Text is sent as UTF-8. */
function sent(text: string): Uint8Array {
  const data = encode(text, "latin1");
  return typeof data === "string" ? new TextEncoder().encode(data) : data;
}
