/**
 * One error class. Its `kind` says whose turn it is, its `code` what went wrong, its `fields` the
 * figures that a program needs to act or to tell the user.
 */

/**
 * - `argument`: the caller passed something that cannot be right; calling again will not help.
 * - `limit`: well formed, but larger than the system allows.
 * - `source`: the bytes to store cannot be read, or are not what was announced.
 */
export type ErrorKind = "argument" | "limit" | "source";

/** Every code with its kind and fields. */
interface Catalogue {
  /** Not 64 lower-case hex characters, or not 32 bytes. */
  InvalidBlobId: { kind: "argument"; fields: { expected: string } };
  /** Not a whole number of bytes from 0 up. */
  InvalidSize: { kind: "argument"; fields: { size: number } };
  /** The blob has chunks `0 .. count - 1`. */
  InvalidChunkIndex: { kind: "argument"; fields: { index: number; count: number } };
  /** Not `0 ≤ start ≤ end ≤ max`, in bytes of a source or in chunks of a blob. */
  InvalidRange: { kind: "argument"; fields: { start: number; end: number; max: number } };
  /** The named argument is not a principal in its textual form. */
  InvalidPrincipal: { kind: "argument"; fields: { argument: string } };
  /** Not an access token: base64url, at most `max` characters. */
  InvalidToken: { kind: "argument"; fields: { max: number } };
  /** Not an http(s) origin, or one that cannot carry the URL form asked for. */
  InvalidGateway: { kind: "argument"; fields: { gateway: string } };
  /** In bytes. */
  BlobTooLarge: { kind: "limit"; fields: { size: number; max: number } };
  /**
   * The source announced `expected` bytes and gave `received`. Reading stops at the first byte too
   * many, so `received` may be less than all that it would have given.
   */
  SizeMismatch: { kind: "source"; fields: { expected: number; received: number } };
  /** Reading failed; `cause` says why. */
  SourceUnreadable: { kind: "source"; fields: { name: string } };
  /** The file was written to since it was chosen. */
  SourceChanged: { kind: "source"; fields: { name: string } };
  /** A stream can be read once, and was. */
  SourceConsumed: { kind: "source"; fields: { name: string } };
}

export type ErrorCode = keyof Catalogue;

/** The figures that come with a code. */
export type ErrorFields<C extends ErrorCode> = Readonly<Catalogue[C]["fields"]>;

const KINDS: { readonly [C in ErrorCode]: Catalogue[C]["kind"] } = {
  InvalidBlobId: "argument",
  InvalidSize: "argument",
  InvalidChunkIndex: "argument",
  InvalidRange: "argument",
  InvalidPrincipal: "argument",
  InvalidToken: "argument",
  InvalidGateway: "argument",
  BlobTooLarge: "limit",
  SizeMismatch: "source",
  SourceUnreadable: "source",
  SourceChanged: "source",
  SourceConsumed: "source",
};

/**
 * Thrown for everything that this library itself finds wrong. An abort is not among these: it
 * rejects with the signal's own reason, as the platform's functions do.
 */
export class OpenStorageError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "OpenStorageError";
  readonly kind: Catalogue[C]["kind"];

  constructor(
    readonly code: C,
    message: string,
    readonly fields: ErrorFields<C>,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.kind = KINDS[code];
  }
}

/** The errors as a union, so that a check of `code` tells the type of `fields`. */
export type AnyOpenStorageError = { [C in ErrorCode]: OpenStorageError<C> }[ErrorCode];

/**
 * Whether something caught is this library's.
 *
 * ```ts
 * if (isOpenStorageError(error) && error.code === "BlobTooLarge") show(error.fields.max);
 * ```
 */
export function isOpenStorageError(error: unknown): error is AnyOpenStorageError {
  return error instanceof OpenStorageError;
}
