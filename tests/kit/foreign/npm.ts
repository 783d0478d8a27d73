/**
 * Packages of npm as clients of a server under test. They are not in the import map, so that only tests need npm.
 *
 * @module
 */

/** A package that a test uses. */
export interface Loaded<Module> {
  /** What it exports; undefined if it cannot be loaded. */
  readonly module: Module;
  /** The suffix of the names of tests that need it. */
  readonly missing: string;
}

/**
 * Loads a package, or says why it cannot be loaded.
 *
 * @param specifier The package with its exact version, such as `npm:jayson@5.0.0`.
 */
export async function load<Module>(specifier: string): Promise<Loaded<Module>> {
  try {
    return { module: await import(specifier), missing: "" };
  } catch (error) {
    const [why] = `${error instanceof Error ? error.message : error}`.split("\n");
    return { module: undefined as Module, missing: ` (skipped: ${specifier} cannot be loaded: ${why})` };
  }
}

/** The events of a client. */
export interface Emitter {
  once(event: string, listener: (...values: never[]) => void): unknown;
}

/** Waits for the next event of a name, and returns what it carries. */
export function next<T>(emitter: Emitter, event: string): Promise<T> {
  return new Promise((resolve) => emitter.once(event, (value: T) => resolve(value)));
}
