import type { BaseHandler } from "./base_handler.ts";
import { getLevelByName, getLevelName, type LevelName, type LogLevel, LogLevels } from "./levels.ts";
import { LogRecord } from "./log_record.ts";

export { LogRecord, type LogRecordOptions } from "./log_record.ts";

/** Any function. */
// deno-lint-ignore no-explicit-any
export type GenericFunction = (...args: any[]) => any;

/** Logs at one level, and returns the message. */
export interface LogFunction {
  /** Calls `msg` only when its result will be logged. */
  <T>(msg: () => T, ...args: unknown[]): T | undefined;
  <T>(msg: T extends GenericFunction ? never : T, ...args: unknown[]): T;
}

/** Options of a {@linkcode Logger}. */
export interface LoggerOptions {
  /** @default {[]} */
  handlers?: BaseHandler[];
}

/** How `setup` makes a logger. */
export interface LoggerConfig {
  /** @default {"INFO"} */
  level?: LevelName;
  /** Names of handlers. @default {[]} */
  handlers?: string[];
}

/** What `setup` takes. */
export interface LogConfig {
  /** By name. `default` writes to the console unless given. */
  handlers?: { [name: string]: BaseHandler };
  /** By name. `default` uses the handler `default` unless given. */
  loggers?: { [name: string]: LoggerConfig };
}

/** Makes records of the messages that reach its level, for its handlers. */
export class Logger {
  readonly #loggerName: string;
  #level: LogLevel;
  handlers: BaseHandler[];

  readonly debug: LogFunction = this.#at(LogLevels.DEBUG);
  readonly info: LogFunction = this.#at(LogLevels.INFO);
  readonly warn: LogFunction = this.#at(LogLevels.WARN);
  readonly error: LogFunction = this.#at(LogLevels.ERROR);
  readonly critical: LogFunction = this.#at(LogLevels.CRITICAL);

  constructor(
    loggerName: string,
    levelName: LevelName,
    options: LoggerOptions = {},
  ) {
    this.#loggerName = loggerName;
    this.#level = getLevelByName(levelName);
    this.handlers = options.handlers ?? [];
  }

  get level(): LogLevel {
    return this.#level;
  }
  set level(level: LogLevel) {
    if (!Object.values(LogLevels).includes(level)) {
      throw new TypeError(`Invalid log level: ${level}`);
    }
    this.#level = level;
  }

  get levelName(): LevelName {
    return getLevelName(this.#level);
  }
  set levelName(levelName: LevelName) {
    this.#level = getLevelByName(levelName);
  }

  get loggerName(): string {
    return this.#loggerName;
  }

  /** Makes text of a message: an error's stack, an object's own properties. */
  asString(data: unknown, isProperty = false): string {
    if (typeof data === "string") return isProperty ? `"${data}"` : data;
    if (typeof data === "function") return "undefined";
    if (data instanceof Error) return data.stack!;
    if (typeof data !== "object" || data === null) return String(data);
    const properties = Object.entries(data)
      .map(([key, value]) => `"${key}":${this.asString(value, true)}`);
    return `{${properties.join(",")}}`;
  }

  #at(level: LogLevel): LogFunction {
    return (msg: unknown, ...args: unknown[]) => {
      const lazy = typeof msg === "function";
      if (level < this.#level) return lazy ? undefined : msg;
      const data = lazy ? msg() : msg;
      const record = new LogRecord({
        msg: this.asString(data),
        args,
        level,
        loggerName: this.#loggerName,
      });
      for (const handler of this.handlers) handler.handle(record);
      return data;
    };
  }
}
