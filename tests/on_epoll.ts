/**
 * To be imported before a file of tests: its servers take their sockets from `epoll` then.
 *
 * @module
 */

import { listenEpoll } from "@x/shouty/ops";
import { VARIANT } from "./bounded.ts";
import { NO_EPOLL } from "./epoll.ts";
import { SOCKETS } from "./server.ts";

SOCKETS.listen = listenEpoll;
VARIANT.suffix = `, on epoll${NO_EPOLL}`;
VARIANT.ignore = NO_EPOLL !== "";
