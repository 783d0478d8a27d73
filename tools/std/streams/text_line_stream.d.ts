/**
 * `@std/streams/text-line-stream`, declared for the copy that `tools/setup.ts`
 * takes from npm.
 * @module
 */

/** Where {@linkcode TextLineStream} ends a line. */
export interface TextLineStreamOptions {
  /** Ends a line at a lone CR too. @default {false} */
  allowCR?: boolean;
}

/** Cuts text into lines, at LF or CRLF. */
export class TextLineStream extends TransformStream<string, string> {
  constructor(options?: TextLineStreamOptions);
}
