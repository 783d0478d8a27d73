import { BaseHandler, type BaseHandlerOptions } from "./base_handler.ts";
import type { LevelName } from "./levels.ts";
import type { LogRecord } from "./log_record.ts";

/** Options of {@linkcode ConsoleHandler}. */
export interface ConsoleHandlerOptions extends BaseHandlerOptions {
  /** Colors each line by its level, unless `NO_COLOR` is set. @default {true} */
  useColors?: boolean;
}

const COLORS: Partial<Record<LevelName, [on: string, off: string]>> = {
  INFO: ["\x1b[34m", "\x1b[39m"],
  WARN: ["\x1b[33m", "\x1b[39m"],
  ERROR: ["\x1b[31m", "\x1b[39m"],
  CRITICAL: ["\x1b[1m\x1b[31m", "\x1b[39m\x1b[22m"],
};

/** Writes each line with `console.log`. */
export class ConsoleHandler extends BaseHandler {
  readonly #useColors: boolean;

  constructor(levelName: LevelName, options: ConsoleHandlerOptions = {}) {
    super(levelName, options);
    this.#useColors = (options.useColors ?? true) && !Deno.noColor;
  }

  override format(logRecord: LogRecord): string {
    const line = super.format(logRecord);
    const color = this.#useColors && COLORS[logRecord.levelName];
    return color ? color[0] + line + color[1] : line;
  }

  override log(msg: string): void {
    console.log(msg);
  }
}
