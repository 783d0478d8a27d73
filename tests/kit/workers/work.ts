/**
 * Measures work by counting bytes, which does not depend on the speed or load of the machine.
 *
 * @module
 */

/** Counts the bytes that are searched, moved and copied in typed arrays, and decoded, until it is disposed of. */
export function countWork(): Disposable & { searched: number; moved: number; copied: number; decoded: number } {
  const proto = Object.getPrototypeOf(Uint8Array.prototype);
  const { indexOf, lastIndexOf, copyWithin, set, slice } = proto;
  const { decode } = TextDecoder.prototype;
  const work = {
    searched: 0,
    moved: 0,
    copied: 0,
    decoded: 0,
    [Symbol.dispose]() {
      Object.assign(proto, { indexOf, lastIndexOf, copyWithin, set, slice });
      Object.assign(TextDecoder.prototype, { decode });
    },
  };
  proto.indexOf = function (this: Uint8Array, ...args: [number, number?]) {
    const at = indexOf.apply(this, args);
    work.searched += (at < 0 ? this.length : at + 1) - (args[1] ?? 0);
    return at;
  };
  proto.lastIndexOf = function (this: Uint8Array, ...args: [number]) {
    const at = lastIndexOf.apply(this, args);
    work.searched += this.length - Math.max(0, at);
    return at;
  };
  proto.copyWithin = function (this: Uint8Array, target: number, start: number, end: number) {
    work.moved += end - start;
    return copyWithin.call(this, target, start, end);
  };
  proto.set = function (this: Uint8Array, source: Uint8Array, offset?: number) {
    work.moved += source.length;
    return set.call(this, source, offset);
  };
  proto.slice = function (this: Uint8Array, ...range: number[]) {
    const copy = slice.apply(this, range);
    work.copied += copy.length;
    return copy;
  };
  TextDecoder.prototype.decode = function (...args) {
    work.decoded += args[0]?.byteLength ?? 0;
    return decode.apply(this, args);
  };
  return work;
}
