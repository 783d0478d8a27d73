/**
 * Lines one by one, at a limited rate.
 *
 * @module
 */

import type { Reader } from "../io/reader.ts";
import type { LineCutter } from "../lines/line_cutter.ts";

/** Lets the lines of a connection pass whose rate is limited. */
export class LinePass {
  /** The wait for the pace, which an interrupted read leaves to the next one; and whether a line may pass. */
  #passing: Promise<void> | undefined;
  #mayPass = false;

  /** A line has passed. */
  used(): void {
    this.#mayPass = false;
  }

  /** Returns what to wait for before the next line may pass; undefined if it may, or if none has come. */
  wait({ linePace }: Reader, cutter: LineCutter): Promise<void> | undefined {
    if (this.#mayPass || cutter.count(1) === 0) return undefined;
    this.#passing ??= linePace?.line((most) => cutter.count(most))?.then(() => {
      this.#passing = undefined;
      this.#mayPass = true;
    });
    if (this.#passing === undefined) this.#mayPass = true;
    return this.#passing;
  }
}
