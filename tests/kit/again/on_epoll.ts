/**
 * Imported before a file of tests, makes its servers use sockets of `epoll`.
 *
 * @module
 */

import { listenEpoll } from "@x/shouty/ops";
import { VARIANT } from "../bounded.ts";
import { NO_EPOLL } from "../sockets/epoll.ts";
import { SOCKETS } from "../server.ts";

let listeners = 0;

SOCKETS.listen = (address) => {
  listeners++;
  return listenEpoll(address);
};
SOCKETS.tellResets = true;
VARIANT.suffix = `, on epoll${NO_EPOLL}`;
VARIANT.ignore = NO_EPOLL !== "";
VARIANT.check = () => {
  if (listeners === 0) throw new Error("It took no socket from epoll: register it with testOnce()");
  listeners = 0;
};
