/**
 * Shows how far long work has come. On a terminal, the last line says so, and is drawn again when there is news and every
 * second; finished lines go above it. In a pipe or a file, finished lines are plain lines, and what is under way is one
 * at most once a minute.
 *
 * `@std/cli` has a bar and a spinner, which are unstable, and which npm's copy of the standard library lacks.
 *
 * @module
 */

/** Milliseconds between two drawings without news: the line shows seconds. */
const TICK_MS = 1000;

/** Minimum milliseconds between two plain lines about what is under way. */
const PLAIN_MS = 60_000;

/** Characters of the bar. */
const BAR = 20;

/** Goes to the beginning of the line and erases it. */
const CLEAR = "\r\x1b[K";

/** What {@linkcode Progress} writes to. */
export interface Screen {
  isTerminal(): boolean;
  writeSync(bytes: Uint8Array): number;
}

/** What {@linkcode Progress} needs of its surroundings. */
export interface ProgressOptions {
  /** Number of steps; without it, the line has no bar. */
  total?: number;
  /** @default {Deno.stderr} */
  screen?: Screen;
  /** The width of the screen. */
  columns?: () => number;
  /** Milliseconds since some moment. */
  now?: () => number;
}

/** The progress of one piece of work. Dispose it at the end: the line on the terminal goes away. */
export class Progress implements Disposable {
  readonly #total: number | undefined;
  readonly #screen: Screen;
  readonly #columns: () => number;
  readonly #now: () => number;
  readonly #start: number;
  readonly #isTerminal: boolean;
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  readonly #erase = () => this.#write(CLEAR);
  #done = 0;
  #what = "";
  #printed: number;

  constructor(options: ProgressOptions = {}) {
    const { total, screen = Deno.stderr, columns = terminalColumns, now = () => performance.now() } = options;
    this.#total = total;
    this.#screen = screen;
    this.#columns = columns;
    this.#now = now;
    this.#start = this.#printed = now();
    // A dumb terminal cannot erase a line.
    this.#isTerminal = screen.isTerminal() && Deno.env.get("TERM") !== "dumb";
    if (!this.#isTerminal) return;
    this.#timer = setInterval(() => this.#draw(), TICK_MS);
    // Drawing keeps no process alive.
    Deno.unrefTimer(this.#timer as unknown as number);
    // A signal ends the tools with Deno.exit(), which disposes nothing.
    addEventListener("unload", this.#erase);
  }

  /**
   * Says what is under way.
   *
   * @param what A few words.
   * @param done Number of finished steps; as before without it.
   */
  show(what: string, done: number = this.#done): void {
    this.#what = what;
    this.#done = done;
    if (this.#isTerminal) this.#draw();
    else if (this.#now() - this.#printed >= PLAIN_MS) this.print(this.#line());
  }

  /**
   * Prints a finished line.
   *
   * @param line The line, without its end.
   * @param write What prints it.
   */
  print(line: string, write: (line: string) => void = (line) => this.#write(`${line}\n`)): void {
    if (this.#isTerminal) this.#erase();
    write(line);
    this.#printed = this.#now();
    if (this.#isTerminal) this.#draw();
  }

  /** Finishes one step, and prints a line about it. */
  step(line: string, write?: (line: string) => void): void {
    this.#done++;
    this.print(line, write);
  }

  [Symbol.dispose](): void {
    if (!this.#isTerminal) return;
    clearInterval(this.#timer);
    removeEventListener("unload", this.#erase);
    this.#erase();
  }

  /** Draws the line. One that is wider than the terminal could not be erased. */
  #draw(): void {
    this.#write(CLEAR + this.#line().slice(0, Math.max(0, this.#columns() - 1)));
  }

  #line(): string {
    const time = minutes(this.#now() - this.#start);
    if (this.#total === undefined) return `${time} ${this.#what}`;
    const filled = Math.min(BAR, Math.floor(BAR * this.#done / this.#total));
    return `[${"#".repeat(filled)}${"-".repeat(BAR - filled)}] ${this.#done}/${this.#total} ${time} ${this.#what}`;
  }

  #write(text: string): void {
    const bytes = new TextEncoder().encode(text);
    for (let from = 0; from < bytes.length;) from += this.#screen.writeSync(bytes.subarray(from));
  }
}

function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns || 80; // 0: the terminal does not know.
  } catch {
    return 80; // No terminal is left.
  }
}

/** Milliseconds as minutes and seconds. */
function minutes(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
