/**
 * A small stand-in for `@std/log` 0.224, which no npm package carries: the same
 * names, types and behaviour, without the handlers that write files.
 * `tools/setup.ts` puts it in place only where JSR cannot be reached; whatever
 * runs on it runs on the original too.
 * @module
 */
export * from "./base_handler.ts";
export * from "./console_handler.ts";
export * from "./default_logger.ts";
export * from "./formatters.ts";
export * from "./levels.ts";
export * from "./logger.ts";
