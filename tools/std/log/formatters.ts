import type { LogRecord } from "./log_record.ts";

/** Makes one JSON object of a record; a single argument stands by itself. */
export function jsonFormatter(logRecord: LogRecord): string {
  const { args } = logRecord;
  return JSON.stringify({
    level: logRecord.levelName,
    datetime: logRecord.datetime.getTime(),
    message: logRecord.msg,
    args: args.length > 1 ? args : args[0],
  });
}

/** The formatters by name. */
export const formatters: { readonly jsonFormatter: typeof jsonFormatter } = { jsonFormatter };
