/**
 * The error for certificates and keys that cannot be used.
 *
 * @module
 */

import type { TlsCredentials } from "./credentials.ts";

/** The options of TLS that can hold text that cannot be used. */
export type TlsCredentialsOption = keyof TlsCredentials | "caCerts";

/** One of the credentials cannot be used. */
export class TlsCredentialsError extends Error {
  /** The option that cannot be used. */
  readonly option: TlsCredentialsOption;
  /** What is wrong with it, to be read after the option's name. */
  readonly problem: string;

  /**
   * Creates the error.
   *
   * @param option The option that cannot be used.
   * @param problem What is wrong with it, to be read after the option's name.
   */
  constructor(option: TlsCredentialsOption, problem: string) {
    super(`Cannot use ${option}: ${problem}`);
    this.name = "TlsCredentialsError";
    this.option = option;
    this.problem = problem;
  }
}
