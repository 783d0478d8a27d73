/**
 * Separates Telnet's commands (RFC 854) from a connection's data. Does no input or output: bytes in; data and answers out.
 *
 * @module
 */

/** "Interpret as command": begins each command. In data, a byte of this value is sent twice. */
export const IAC = 255;

const SE = 240;
const SB = 250;
const [WILL, WONT, DO, DONT] = [251, 252, 253, 254];

/** An option whose answer says that everything sent before it has been processed (RFC 860). */
const TIMING_MARK = 6;

/** Maximum bytes of one subnegotiation; far more than any option needs that a client offers unasked. */
export const MAX_SUBNEGOTIATION_BYTES = 1024;

/** The last byte: data, IAC, a command that an option follows, part of a subnegotiation, or an IAC in one. */
type State = "data" | "iac" | typeof WILL | typeof WONT | typeof DO | typeof DONT | "sub" | "sub-iac";

/** The result of filtering some bytes. */
export interface Filtered {
  /** Number of bytes of data. */
  readonly data: number;
  /** Number of bytes filtered: all, or those up to a TIMING-MARK, which must not be answered before the data is. */
  readonly filtered: number;
  /** Whether they end with a TIMING-MARK, to be answered with {@linkcode MARK_ANSWER}. */
  readonly mark: boolean;
}

/** The answer to a TIMING-MARK. */
export const MARK_ANSWER: Uint8Array = Uint8Array.of(IAC, WILL, TIMING_MARK);

/** Takes Telnet's commands out of a connection's input, in reads of any size. */
export class TelnetFilter {
  readonly #answer: (bytes: Uint8Array) => void;
  #state: State = "data";
  #subnegotiated = 0;

  /** @param answer Called with bytes to be sent to the peer: refusals of options. */
  constructor(answer: (bytes: Uint8Array) => void) {
    this.#answer = answer;
  }

  /**
   * Copies the data out of the input.
   *
   * @param bytes The input.
   * @param into The buffer for the data, at least as long as the input; it may be the same memory.
   * @returns How much was filtered, and how much of it is data.
   * @throws {RangeError} If a subnegotiation is longer than {@linkcode MAX_SUBNEGOTIATION_BYTES}.
   */
  filter(bytes: Uint8Array, into: Uint8Array): Filtered {
    // Nearly every read has no command in it. Its bytes need not be moved.
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
      if (this.#isData(byte)) into[data++] = byte;
    }
    return { data, filtered: bytes.length, mark: false };
  }

  /** Processes the next byte, and tells whether it is data. */
  #isData(byte: number): boolean {
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
    // A data byte 255, or a command of these two bytes alone, such as Interrupt Process.
    else this.#state = "data";
  }

  #subnegotiate(byte: number): void {
    if (++this.#subnegotiated > MAX_SUBNEGOTIATION_BYTES) {
      throw new RangeError(`A Telnet subnegotiation longer than ${MAX_SUBNEGOTIATION_BYTES} bytes`);
    }
    if (this.#state === "sub") this.#state = byte === IAC ? "sub-iac" : "sub";
    else this.#state = byte === SE ? "data" : "sub";
  }

  /** Refuses an option. WONT and DONT get no answer: the option is off already, and two peers would answer for ever. */
  #refuse(state: number, option: number): void {
    if (state === DO) this.#answer(Uint8Array.of(IAC, WONT, option));
    if (state === WILL) this.#answer(Uint8Array.of(IAC, DONT, option));
  }
}
