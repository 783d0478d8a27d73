import { assertEquals, assertThrows } from "@std/assert";
import { resolveFraming } from "../../internal/api/framing.ts";
import { decode, encode } from "../../internal/lines/text.ts";

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

Deno.test("under latin1, a character beyond U+00FF is an error that names it", () => {
  for (const [text, name] of [["aĀ", "U+0100"], ["é💡", "U+1F4A1"]]) {
    assertThrows(() => encode(text, "latin1"), TypeError, name);
  }
});

/** Text is sent as UTF-8. */
function sent(text: string): Uint8Array {
  const data = encode(text, "latin1");
  return typeof data === "string" ? new TextEncoder().encode(data) : data;
}
