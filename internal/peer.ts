/**
 * What the two doors need of their connection.
 *
 * @module
 */
import type { Breach } from "./limiter.ts";

/** The peer's side of a connection, for whoever reads its lines. */
export interface Peer {
  /** Whether the connection is about to end, so that nobody should go on. */
  readonly leaving: boolean;
  /** Starts the one outstanding read; `null` is the end of input. */
  read(into: Uint8Array): Promise<number | null>;
  /** A read has settled with so many bytes, or with the end of input. */
  took(count: number | null): void;
  /** A read has failed. */
  failed(error: unknown): void;
  /** The server begins to wait for the peer, being in the middle of a line or not. */
  wait(midLine: boolean): void;
  /** It waits no longer. */
  rest(): void;
  /** A line has ended. */
  lineEnded(): void;
}

/** A door at work. */
export interface Input {
  /** Whole lines that came. */
  readonly count: number;
  /** The limit that was passed, if one was. */
  readonly breach: Breach | undefined;
  /** Whether everything that came is answered, no line has begun, and the server waits for the peer. */
  readonly atRest: boolean;
  /**
   * Takes no more lines than those that have come.
   *
   * @returns Whether the handler gets to know and finishes by itself.
   */
  end(): boolean;
}
