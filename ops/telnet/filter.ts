/**
 * Telnet's commands among the bytes of a connection (RFC 854). Pure: bytes in; bytes without commands, and answers, out.
 *
 * @module
 */

/** "Interpret as command"; the byte itself is sent twice. */
export const IAC = 255;

const SE = 240;
const SB = 250;
const [WILL, WONT, DO, DONT] = [251, 252, 253, 254];

/** An option that asks for an answer when all that was sent before it has been processed (RFC 860). */
const TIMING_MARK = 6;

/** Maximum bytes of one subnegotiation: no option that a client offers unasked needs nearly as many. */
export const MAX_SUBNEGOTIATION_BYTES = 1024;

/** What was last read: data, IAC, a command that an option follows, or a subnegotiation and an IAC in it. */
type State = "data" | "iac" | typeof WILL | typeof WONT | typeof DO | typeof DONT | "sub" | "sub-iac";

/** What became of some bytes. */
export interface Filtered {
  /** How many bytes of data there are. */
  readonly data: number;
  /** How many bytes were filtered: all, or those up to a TIMING-MARK, whose answer has to follow that of the data. */
  readonly filtered: number;
  /** Whether they end with such a mark, which {@linkcode MARK_ANSWER} answers. */
  readonly mark: boolean;
}

/** The answer to a TIMING-MARK. */
export const MARK_ANSWER: Uint8Array = Uint8Array.of(IAC, WILL, TIMING_MARK);

/** Takes Telnet's commands out of one direction of a connection, wherever reads cut it. */
export class TelnetFilter {
  readonly #answer: (bytes: Uint8Array) => void;
  #state: State = "data";
  #subnegotiated = 0;

  /** @param answer Takes what is to be sent to the peer: refusals of options. */
  constructor(answer: (bytes: Uint8Array) => void) {
    this.#answer = answer;
  }

  /**
   * Filters bytes.
   *
   * @param bytes What came.
   * @param into Where the data goes, which may be where the bytes are; at least as long.
   * @returns What became of it.
   * @throws {RangeError} If a subnegotiation is longer than {@linkcode MAX_SUBNEGOTIATION_BYTES}.
   */
  filter(bytes: Uint8Array, into: Uint8Array): Filtered {
    // Nearly all bytes come in reads without a command, which need not be moved.
    if (this.#state === "data" && !bytes.includes(IAC)) {
      if (bytes.buffer !== into.buffer) into.set(bytes);
      return { data: bytes.length, filtered: bytes.length, mark: false };
    }
    let data = 0;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i];
      if (this.#state === DO && byte === TIMING_MARK) {
        this.#state = "data";
        return { data, filtered: i + 1, mark: true };
      }
      if (this.#take(byte)) into[data++] = byte;
    }
    return { data, filtered: bytes.length, mark: false };
  }

  /** Takes the next byte, and tells whether it is data. */
  #take(byte: number): boolean {
    switch (this.#state) {
      case "data":
        if (byte !== IAC) return true;
        this.#state = "iac";
        return false;
      case "iac":
        this.#command(byte);
        return byte === IAC;
      case "sub":
      case "sub-iac":
        this.#subnegotiate(byte);
        return false;
      default:
        this.#refuse(this.#state, byte);
        this.#state = "data";
        return false;
    }
  }

  #command(byte: number): void {
    if (byte === SB) this.#subnegotiated = 0;
    if (byte === SB) this.#state = "sub";
    else if (byte === WILL || byte === WONT || byte === DO || byte === DONT) this.#state = byte;
    // Data that is 255, or a command without more to it, such as Interrupt Process.
    else this.#state = "data";
  }

  #subnegotiate(byte: number): void {
    if (++this.#subnegotiated > MAX_SUBNEGOTIATION_BYTES) {
      throw new RangeError(`A Telnet subnegotiation longer than ${MAX_SUBNEGOTIATION_BYTES} bytes`);
    }
    if (this.#state === "sub") this.#state = byte === IAC ? "sub-iac" : "sub";
    else this.#state = byte === SE ? "data" : "sub";
  }

  /** An option that is off already, as WONT and DONT say, must not be answered: two peers would answer for ever. */
  #refuse(state: number, option: number): void {
    if (state === DO) this.#answer(Uint8Array.of(IAC, WONT, option));
    if (state === WILL) this.#answer(Uint8Array.of(IAC, DONT, option));
  }
}
