/**
 * `@std/cli/parse-args`, declared for the copy that `tools/setup.ts` takes from
 * npm. Simpler than the original in one respect: a dotted name is one key, not a
 * nested object.
 *
 * The type parameters stand for the names given as `boolean` (B), `string` (S),
 * `collect` (C) and `negatable` (N), for the defaults (D) and the aliases (A).
 * @module
 */
export {};

type Name = string | undefined;
type Names<T> = T | readonly Extract<T, string>[];
type Aliases = Readonly<Record<string, string | readonly string[]>> | undefined;
type Defaults = Record<string, unknown> | undefined;

type Flags<B, S, C, N> =
  & { [K in Only<S, C>]?: string | Negated<K, B, N> }
  & { [K in Only<B, C>]: boolean }
  & { [K in Only<C, never>]: Collected<K, B, S>[] | Negated<K, B, N> };
type Only<T, U> = Exclude<Extract<T, string>, U>;
type Negated<K, B, N> = K extends Exclude<N, B> ? false : never;
type Collected<K, B, S> = K extends S ? string
  : K extends B ? boolean
  : unknown;

type WithDefaults<T, D> =
  & Omit<T, keyof D>
  & { [K in keyof D]: K extends keyof T ? D[K] | NonNullable<T[K]> : unknown };
type WithAliases<T, A> = { [K in keyof T as K | AliasesOf<K, A>]: T[K] };
type AliasesOf<K, A> = K extends keyof A ? string extends A[K] ? never
  : A[K] extends string ? A[K]
  : A[K] extends readonly string[] ? A[K][number]
  : never
  : never;

/** Without typed names, every flag can be anything. */
type Values<B, S, C, N, D, A> = undefined extends B & S & C
  // deno-lint-ignore no-explicit-any
  ? Record<string, any>
  :
    & Record<string, unknown>
    & WithAliases<WithDefaults<Flags<B, S, C, N>, D>, A>;

type Simplify<T> = { [K in keyof T]: T[K] };

/** What {@linkcode parseArgs} returns: the flags, and in `_` what is none. */
export type Args<
  // deno-lint-ignore no-explicit-any
  TArgs extends Record<string, unknown> = Record<string, any>,
  TDoubleDash extends boolean | undefined = undefined,
> = Simplify<
  & TArgs
  & { _: Array<string | number> }
  & (boolean extends TDoubleDash ? { "--"?: string[] }
    : true extends TDoubleDash ? { "--": string[] }
    : unknown)
>;

/** How {@linkcode parseArgs} reads the arguments. */
export interface ParseOptions<
  B extends Name | boolean = Name | boolean,
  S extends Name = Name,
  C extends Name = Name,
  N extends Name = Name,
  D extends Defaults = Defaults,
  A extends Aliases = Aliases,
  TDoubleDash extends boolean | undefined = boolean | undefined,
> {
  /** Puts what follows a `--` into `"--"` instead of `_`. @default {false} */
  "--"?: TDoubleDash;
  /** Other names of a flag. */
  alias?: A;
  /** Flags that take no value, `false` when not given; `true` for all. */
  boolean?: Names<B>;
  /** Values of flags that were not given. */
  default?: D;
  /** Takes everything from the first argument that is no flag into `_`. */
  stopEarly?: boolean;
  /** Flags whose value stays a string. */
  string?: Names<S>;
  /** Flags that can be given several times, as an array. */
  collect?: Names<C>;
  /** Flags that `--no-` turns off. */
  negatable?: Names<N>;
  /** Is called for each argument that no option names; `false` leaves it out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Reads command-line arguments into flags and the rest. */
export function parseArgs<
  B extends Name | boolean = undefined,
  S extends Name = undefined,
  C extends Name = undefined,
  N extends Name = undefined,
  // deno-lint-ignore ban-types
  D extends Defaults = {},
  // deno-lint-ignore ban-types
  const A extends Aliases = {},
  TDoubleDash extends boolean | undefined = undefined,
>(
  args: string[],
  options?: ParseOptions<B, S, C, N, D, A, TDoubleDash>,
): Args<Values<B, S, C, N, D, A>, TDoubleDash>;
