/**
 * Sends messages from one isolate to another, many at a time.
 *
 * @module
 */

/** Collects the messages of one turn, and sends them at once: to send one alone costs as much as to answer a line. */
export class Batcher<Message> {
  readonly #send: (messages: readonly Message[]) => void;
  #waiting: Message[] = [];

  /** @param send Sends messages. */
  constructor(send: (messages: readonly Message[]) => void) {
    this.#send = send;
  }

  /** Sends a message at the end of this turn. */
  add(message: Message): void {
    this.#waiting.push(message);
    if (this.#waiting.length === 1) queueMicrotask(() => this.flush());
  }

  /**
   * Sends a message now, behind those that wait.
   *
   * @throws {TypeError} If something in the message cannot be copied; the others have been sent.
   */
  send(message: Message): void {
    this.flush();
    this.#send([message]);
  }

  /** Sends what waits, now. */
  flush(): void {
    const messages = this.#waiting;
    this.#waiting = [];
    if (messages.length > 0) this.#send(messages);
  }
}
