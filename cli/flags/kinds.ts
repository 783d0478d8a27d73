/**
 * The kinds of values that flags take: how each is written, parsed and bounded.
 *
 * @module
 */

import { parseCidrs, parsePeers } from "../../internal/admission/cidr.ts";
import { LONGEST_MS } from "../../internal/api/check.ts";
import { MOST_WORKERS } from "../../ops/workers/options.ts";

/** One kind of value. */
export interface Kind<T> {
  /** The placeholder of such a value in `--help`. */
  readonly symbol: string;
  /** Sentences in `--help` about such values. */
  readonly legend?: readonly string[];
  /** The value of a flag that is given without one; by default a flag needs a value. */
  readonly bare?: string;
  /** The values that are words, which a shell can complete; by default there are none. */
  readonly words?: readonly string[];
  /** Whether the other values are names of files. */
  readonly files?: boolean;
  /** The allowed values, to be read after "expected". */
  readonly allowed: string;
  /**
   * Parses a value.
   *
   * @param text The text of the value.
   * @returns The value, or `undefined` if it is not allowed.
   */
  read(text: string): T | undefined;
}

/** The address of a TCP server. */
export interface Target {
  readonly hostname: string;
  readonly port: number;
}

/** The address of a server on a Unix socket. */
export interface UnixTarget {
  readonly path: string;
}

const IP = String.raw`[\da-f:.]+(?:%\w+)?`;
const BRACKETED_OR_BARE_IP = new RegExp(`^(?:\\[(${IP})\\]|(${IP}))$`, "i");

/** A host name or an IP address. Only its form is checked: the resolver finds out whether it exists. */
export const HOST: Kind<string> = {
  symbol: "HOST",
  allowed: "a host name or an IP address",
  read(text) {
    const [, bracketed, bare] = BRACKETED_OR_BARE_IP.exec(text) ?? [];
    return /^[\w.-]+$/.test(text) ? text : bracketed ?? bare;
  },
};

/** A host and a port, or a Unix socket, in the form in which the log writes addresses. */
export const TARGET: Kind<Target | UnixTarget> = {
  symbol: "HOST:PORT|unix:PATH",
  allowed: "a host and a port, such as localhost:8080 or [::1]:8080, or unix: and the path of a socket",
  read(text) {
    const [, path] = /^unix:(.+)$/s.exec(text) ?? [];
    if (path !== undefined) return { path };
    const [, host = "", digits = ""] = /^(\[.+\]|[^:]+):(\d+)$/.exec(text) ?? [];
    const hostname = HOST.read(host);
    const port = whole(1, 65_535).read(digits);
    return hostname === undefined || port === undefined ? undefined : { hostname, port };
  },
};

/** Where the admin port listens: as {@linkcode TARGET}, with any port; `off` is `null`, no admin port. */
export const ADMIN: Kind<Target | UnixTarget | null> = withOff(null, {
  symbol: TARGET.symbol,
  allowed: "a host and a port, such as 127.0.0.1:9090 or [::1]:9090, or unix: and the path of a socket",
  read(text) {
    const [, host] = /^(.+):0+$/.exec(text) ?? [];
    const target = TARGET.read(host === undefined || text.startsWith("unix:") ? text : `${host}:1`);
    return host === undefined || target === undefined || "path" in target ? target : { ...target, port: 0 };
  },
});

/** A list of host names; `off` is `null`, no list. */
export const NAMES: Kind<readonly string[] | null> = withOff(null, {
  symbol: "NAMES",
  legend: ["NAMES is host names such as admin.example,shouty.internal."],
  allowed: "host names such as admin.example,shouty.internal",
  read(text) {
    const names = text.split(",");
    return names.every((name) => /^[\w.-]+$/.test(name)) ? names : undefined;
  },
});

/** A text; it may be empty. */
export const TEXT: Kind<string> = { symbol: "TEXT", allowed: "a text", read: (text) => text };

/** A whole number from `least` to `most`. */
export function whole(least: number, most: number = Number.MAX_SAFE_INTEGER): Kind<number> {
  return amount({ symbol: "NUMBER", what: "a whole number", units: { "": 1 }, least, most });
}

/** A time, in milliseconds. */
export const TIME: Kind<number> = time(1, LONGEST_MS);

/** A time within bounds, in milliseconds. */
export function time(least: number, most: number): Kind<number> {
  return amount({
    symbol: "TIME",
    what: "a time",
    examples: "500ms, 10s, 2m or 1h",
    units: { ms: 1, s: 1000, m: 60_000, h: 3_600_000 },
    least,
    most,
  });
}

/** A size in bytes. */
export function size(most: number = Number.MAX_SAFE_INTEGER): Kind<number> {
  return amount({
    symbol: "SIZE",
    what: "a size in bytes",
    examples: "4096, 64KiB or 1MiB",
    units: { "": 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 },
    least: 1,
    most,
  });
}

/** One of a few words. */
export function oneOf<const Word extends string>(...words: readonly Word[]): Kind<Word> {
  return {
    symbol: words.join("|"),
    words,
    allowed: `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`,
    read: (text) => words.find((word) => word === text),
  };
}

/** `on` or `off`; without either, a switch is on. */
export const SWITCH: Kind<boolean> = {
  symbol: "[on|off]",
  words: ["on", "off"],
  bare: "on",
  allowed: "on or off",
  read: (text) => text === "on" ? true : text === "off" ? false : undefined,
};

/** A list of addresses and networks; `off` is `null`, no list. */
export const NETWORKS: Kind<readonly string[] | null> = withOff(null, {
  symbol: "LIST",
  legend: ["LIST is addresses and networks such as 127.0.0.1,10.0.0.0/8,::1."],
  allowed: "addresses and networks such as 127.0.0.1,10.0.0.0/8,::1",
  read: (text) => listOf(text, (parts) => parseCidrs("LIST", parts)),
});

/** A list of proxies; `off` is `null`, no proxies. */
export const PROXIES: Kind<readonly string[] | null> = withOff(null, {
  symbol: "PROXIES",
  legend: ["PROXIES is such a LIST, or unix for those on a Unix socket, or both."],
  allowed: "addresses and networks such as 127.0.0.1,10.0.0.0/8,::1, or unix",
  read: (text) => listOf(text, (parts) => parsePeers("PROXIES", parts)),
});

/** The parts of a list; `undefined` if the check throws. */
function listOf(text: string, check: (parts: string[]) => unknown): string[] | undefined {
  const parts = text.split(",");
  try {
    check(parts);
    return parts;
  } catch {
    return undefined;
  }
}

/** A port; `off` is `null`, no port. */
export const PORT: Kind<number | null> = withOff(null, whole(0, 65_535));

/** A number of workers, or one per processor; `off` is `null`, no workers. */
export const WORKERS: Kind<number | "auto" | null> = {
  symbol: "NUMBER|auto|off",
  words: ["auto", "off"],
  legend: ["auto means one per processor."],
  allowed: `${whole(1, MOST_WORKERS).allowed}, auto or off`,
  read: (text) => text === "off" ? null : text === "auto" ? text : whole(1, MOST_WORKERS).read(text),
};

/** A file's name; `off` is `null`, no file. */
export const FILE: Kind<string | null> = withOff(null, {
  symbol: "FILE",
  files: true,
  allowed: "a file's name",
  read: (text) => text === "" ? undefined : text,
});

/** A file's mode bits. */
export const MODE: Kind<number> = {
  symbol: "MODE",
  legend: ["MODE is a file's permissions in octal, such as 0660."],
  allowed: "a file's permissions in octal, such as 0660, from 0 to 0777",
  read: (text) => /^0?[0-7]{1,3}$/.test(text) ? parseInt(text, 8) : undefined,
};

/** A limit that can be switched off; `off` is `Infinity`. */
export function orOff(kind: Kind<number>): Kind<number> {
  return { ...withOff(Infinity, kind), legend: [...kind.legend ?? [], "off means without a limit."] };
}

/** A time of something that can be left out; `off` is 0. */
export function orNone(kind: Kind<number>): Kind<number> {
  return withOff(0, kind);
}

/** Values of a kind, and the word `off`, which stands for another value. */
export function withOff<T, Off>(off: Off, kind: Kind<T>): Kind<T | Off> {
  return {
    ...kind,
    symbol: `${kind.symbol}|off`,
    words: [...kind.words ?? [], "off"],
    allowed: `${kind.allowed}, or off`,
    read: (text) => text === "off" ? off : kind.read(text),
  };
}

interface Amount {
  readonly symbol: string;
  readonly what: string;
  readonly examples?: string;
  /** The factor of each unit. The first unit is that of the parsed value. */
  readonly units: Readonly<Record<string, number>>;
  readonly least: number;
  readonly most: number;
}

function amount({ symbol, what, examples, units, least, most }: Amount): Kind<number> {
  const names = Object.keys(units);
  const pattern = new RegExp(`^(\\d+)(${names.join("|")})$`);
  const range = `from ${least}${names[0]} to ${most}${names[0]}`;
  return {
    symbol,
    legend: examples === undefined ? [] : [`${symbol} is ${what} such as ${examples}.`],
    allowed: examples === undefined ? `${what} ${range}` : `${what} such as ${examples}, ${range}`,
    read(text) {
      const [, digits, unit] = pattern.exec(text) ?? [];
      const value = Number(digits) * units[unit];
      return Number.isSafeInteger(value) && value >= least && value <= most ? value : undefined;
    },
  };
}
