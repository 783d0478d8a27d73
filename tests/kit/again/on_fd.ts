/**
 * Imported before a file of tests, makes its servers adopt the descriptors of sockets that listen already.
 *
 * @module
 */

import { listenFd } from "@x/shouty/ops";
import { VARIANT } from "../bounded.ts";
import { listeningFd, NO_FD } from "../sockets/fd.ts";
import { SOCKETS } from "../server.ts";

let listeners = 0;

SOCKETS.listen = ({ hostname, port }) => {
  listeners++;
  return listenFd({ fd: listeningFd(hostname, port) });
};
VARIANT.suffix = `, on a descriptor${NO_FD}`;
VARIANT.ignore = NO_FD !== "";
VARIANT.check = () => {
  if (listeners === 0) throw new Error("It took no socket from a descriptor: register it with testOnce()");
  listeners = 0;
};
