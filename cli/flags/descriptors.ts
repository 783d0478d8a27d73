/**
 * The flags about sockets that another process has opened, and about handing them on.
 *
 * @module
 */

import { type Kind, withOff } from "./kinds.ts";

/** A descriptor of a listening socket. */
export interface Descriptor {
  readonly fd: number;
  /** Whether it speaks TLS and the others do not; if none does, a certificate is for all of them. */
  readonly tls: boolean;
}

/** The first descriptor that a process may get from another besides the standard streams; systemd's are from here on. */
export const FIRST_FD = 3;

/** Descriptors of listening sockets, or those that systemd has opened; `off` is `null`, none. */
export const DESCRIPTORS: Kind<readonly Descriptor[] | "systemd" | null> = withOff(null, {
  symbol: "FDS|systemd",
  words: ["systemd"],
  legend: ["FDS is descriptors such as 3 or 3,4:tls, of which those with :tls speak TLS."],
  allowed: `descriptors from ${FIRST_FD} on such as 3 or 3,4:tls, or systemd`,
  read(text) {
    if (text === "systemd") return text;
    const descriptors: Descriptor[] = [];
    for (const part of text.split(",")) {
      const [, digits, tls] = /^(\d{1,9})(:tls)?$/.exec(part) ?? [];
      const fd = Number(digits);
      if (!(fd >= FIRST_FD) || descriptors.some((other) => other.fd === fd)) return undefined;
      descriptors.push({ fd, tls: tls !== undefined });
    }
    return descriptors;
  },
});

/** A switch; `child`, which only the command itself uses, is for the new process of an upgrade. */
export const UPGRADE: Kind<"on" | "off" | "child"> = {
  symbol: "[on|off]",
  words: ["on", "off"],
  bare: "on",
  allowed: "on or off",
  read: (text) => text === "on" || text === "off" || text === "child" ? text : undefined,
};
