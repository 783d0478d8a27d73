/**
 * The processes around this one: systemd, the process that has handed its sockets to this one, and the one that will get
 * them.
 *
 * @module
 */

import type { Descriptor } from "../flags/descriptors.ts";
import type { Environment } from "../line/environment.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Log } from "../log/log.ts";
import type { Values } from "../line/parse.ts";
import type { PermissionName } from "../system/permissions.ts";
import { type CommandLine, ownProgram } from "./program.ts";
import {
  neededToNotify,
  neededToOpenNotifier,
  type Notifier,
  openNotifier,
  readSystemd,
  type Systemd,
} from "./systemd.ts";
import { tellParent, Upgrade, type UpgradeParts } from "./upgrade.ts";

/** The values of the flags about other processes. */
export type HostFlags = Pick<Values<typeof SERVE.flags>, "listenFd" | "upgrade" | "upgradeTimeout">;

/** Talks to the other processes. */
export class Host {
  /** The descriptors to listen on; `null` for none. */
  readonly listenFd: readonly Descriptor[] | null;
  readonly #flags: HostFlags;
  readonly #systemd: Systemd;
  readonly #upgrade = Promise.withResolvers<Upgrade>();
  #program: CommandLine | undefined;
  #notifier: Notifier | undefined;

  /**
   * @param flags The flags' values.
   * @param environment Looks up systemd's variables, which takes permission.
   * @throws {CommandError} If sockets of systemd are wanted, and there are none.
   */
  constructor(flags: HostFlags, environment: Environment) {
    this.#flags = flags;
    this.#systemd = readSystemd(environment);
    this.listenFd = flags.listenFd === "systemd" ? this.#systemd.descriptors() : flags.listenFd;
  }

  /** Whether this process takes over from one that has its own admin port still. */
  get takesOver(): boolean {
    return this.#flags.upgrade === "child";
  }

  /** The permissions that {@linkcode open} can use. */
  get neededToOpen(): PermissionName[] {
    return [...neededToOpenNotifier(this.#systemd), ...this.#neededToUpgrade];
  }

  /** The permissions that are used while the server runs. */
  get neededToRun(): PermissionName[] {
    return [...neededToNotify(this.#systemd), ...this.#neededToUpgrade];
  }

  get #neededToUpgrade(): PermissionName[] {
    return this.#flags.upgrade === "off" ? [] : ["run"];
  }

  /**
   * Does everything that takes permissions.
   *
   * @throws {CommandError} (As a rejection.) If upgrades are wanted, and are not possible.
   */
  async open(log: Log): Promise<void> {
    this.#program = await ownProgram(this.#flags);
    this.#notifier = openNotifier(this.#systemd, log);
  }

  /**
   * Tells systemd, and the process that has started this one, that the server listens; and systemd later that it stops.
   * Call it after {@linkcode open}.
   */
  async serving(parts: Pick<UpgradeParts, "bound" | "server" | "handedOver" | "stop" | "log">): Promise<void> {
    const [program, notifier] = [this.#program, this.#notifier!];
    this.#upgrade.resolve(new Upgrade({ ...parts, flags: this.#flags, program, notifier }));
    await tellParent(this.#flags);
    notifier.ready();
    // Also if the stop came first: systemd would take the server for one that runs if `ready` came last.
    if (parts.stop.aborted) notifier.stopping();
    else parts.stop.addEventListener("abort", notifier.stopping);
  }

  /** Starts the next version of the program, once this one listens; called at SIGUSR2. */
  async upgrade(): Promise<void> {
    (await this.#upgrade.promise).run();
  }

  /**
   * Settles when this process may end: no new process is being started, or ended, any more. Call it after
   * {@linkcode serving}.
   */
  async over(): Promise<void> {
    await (await this.#upgrade.promise).over;
  }
}
