import type { BaseHandler } from "./base_handler.ts";
import { ConsoleHandler } from "./console_handler.ts";
import { type LogConfig, type LogFunction, Logger } from "./logger.ts";

const DEFAULTS: Required<LogConfig> = {
  handlers: { default: new ConsoleHandler("INFO") },
  loggers: { default: { level: "INFO", handlers: ["default"] } },
};

const handlers = new Map<string, BaseHandler>();
const loggers = new Map<string, Logger>();

/** Puts these handlers and loggers in place of all earlier ones. */
export function setup(config: LogConfig): void {
  for (const handler of handlers.values()) handler.destroy();
  handlers.clear();
  for (
    const [name, handler] of Object.entries({
      ...DEFAULTS.handlers,
      ...config.handlers,
    })
  ) {
    handler.setup();
    handlers.set(name, handler);
  }
  loggers.clear();
  for (
    const [name, { level = "INFO", handlers: names = [] }] of Object.entries({
      ...DEFAULTS.loggers,
      ...config.loggers,
    })
  ) {
    const own = names.flatMap((name) => handlers.get(name) ?? []);
    loggers.set(name, new Logger(name, level, { handlers: own }));
  }
}

setup(DEFAULTS);

/** Finds a logger; makes one without handlers when there is none of that name. */
export function getLogger(name?: string): Logger {
  name ||= "default";
  const logger = loggers.get(name) ?? new Logger(name, "INFO");
  loggers.set(name, logger);
  return logger;
}

function byDefaultLogger(
  level: "debug" | "info" | "warn" | "error" | "critical",
): LogFunction {
  return (msg: unknown, ...args: unknown[]) => getLogger()[level](msg, ...args);
}

/** Logs at level DEBUG, with the default logger. */
export const debug: LogFunction = byDefaultLogger("debug");
/** Logs at level INFO, with the default logger. */
export const info: LogFunction = byDefaultLogger("info");
/** Logs at level WARN, with the default logger. */
export const warn: LogFunction = byDefaultLogger("warn");
/** Logs at level ERROR, with the default logger. */
export const error: LogFunction = byDefaultLogger("error");
/** Logs at level CRITICAL, with the default logger. */
export const critical: LogFunction = byDefaultLogger("critical");
