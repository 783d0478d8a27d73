/**
 * Property tests. It is not in the import map, as nobody but the tests is to need npm.
 *
 * @module
 */

export * from "npm:fast-check@^4";
