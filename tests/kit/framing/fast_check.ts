/**
 * Property tests. It is not in the import map, so that only the tests need npm.
 *
 * @module
 */

export * from "npm:fast-check@^4";
