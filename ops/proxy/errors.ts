/**
 * The error for headers of the PROXY protocol.
 *
 * @module
 */

/** A PROXY header is missing or malformed, or comes from a peer that is not a trusted proxy. */
export class ProxyHeaderError extends Error {
  /**
   * Creates the error.
   *
   * @param message What is wrong with the header.
   */
  constructor(message: string) {
    super(message);
    this.name = "ProxyHeaderError";
  }
}

/** Makes the error for a header that breaks the specification. */
export function malformed(what: string): ProxyHeaderError {
  return new ProxyHeaderError(`Malformed PROXY header: ${what}`);
}
