/**
 * One error class. Its `kind` says whose turn it is, its `code` what went wrong, its `fields` the
 * figures that a program needs to act or to tell the user.
 */

/**
 * - `argument`: the caller passed something that cannot be right; calling again will not help.
 * - `limit`: well formed, but larger than the system or the user's allowance permits.
 * - `source`: the bytes to store cannot be read, or are not what was announced.
 * - `access`: the caller may not do this, or not any more.
 * - `conflict`: what the canisters hold stands against it; the message says what clears the way.
 * - `network`: a canister could not be reached, or did not do the work in time. What an upload has
 *   sent stays for a day: the same upload again goes on from there.
 * - `integrity`: what came back is not what was asked for. Do not use it.
 * - `platform`: the page or the browser lacks something; the message says how a page gets it.
 */
export type ErrorKind =
  | "argument"
  | "limit"
  | "source"
  | "access"
  | "conflict"
  | "network"
  | "integrity"
  | "platform";

/** Every code with its kind and fields. */
export interface ErrorCatalogue {
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
  /** Not `type/subtype`, in at most `max` bytes; parameters do not count. */
  InvalidMimeType: { kind: "argument"; fields: { max: number } };
  /** A file name has at most `max` bytes in UTF-8. */
  InvalidName: { kind: "argument"; fields: { max: number } };
  /** A blob is for 1 to `max` accessors, none of them anonymous or the management canister. */
  InvalidAccessors: { kind: "argument"; fields: { max: number } };
  /** The named option has a value that cannot be right. */
  InvalidOption: { kind: "argument"; fields: { option: string } };
  /** In bytes. */
  BlobTooLarge: { kind: "limit"; fields: { size: number; max: number } };
  /**
   * In bytes. `bytesReserved` is held by unfinished uploads, `leasedElsewhere` that part of it which is in other buckets.
   * The index, which is asked first, knows only that the blob alone is larger than the limit: then only `byteLimit` is
   * there.
   */
  AllowanceExceeded: {
    kind: "limit";
    fields: { byteLimit: number; bytesUsed?: number; bytesReserved?: number; leasedElsewhere?: number };
  };
  /** In one bucket. */
  TooManyOpenUploads: { kind: "limit"; fields: { max: number } };
  /** In one bucket: one for each 1,024 bytes of the user's limit, and 1,000 more. */
  TooManyReferences: { kind: "limit"; fields: { max: number } };
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
  /** The chunks that were sent hash to `actual`: the source changed while it was read. */
  HashMismatch: { kind: "source"; fields: { expected: string; actual: string } };
  /** The stored blob has other bytes where this source was asked to show that it is the same. */
  ChunkMismatch: { kind: "source"; fields: { attemptsLeft: number } };
  /** The caller is no registered user of the index. */
  NotRegistered: { kind: "access"; fields: object };
  /**
   * The network does not accept the caller's signature or delegation, most often because the delegation has ended. What
   * an upload has sent stays for a day. The fields are those of `CallFailed`.
   */
  SignInRefused: {
    kind: "access";
    fields: { canister: string; method: string; reason: string; status?: number; body?: string };
  };
  /** Anonymous, or neither the owner nor the bearer of a token for it. */
  NotAuthorized: { kind: "access"; fields: object };
  /** `problem` is the canister's word for it, such as `Expired`. */
  TokenRefused: { kind: "access"; fields: { problem: string } };
  /** No such blob is visible there. */
  NotFound: { kind: "access"; fields: { blobId: string } };
  /** An accessor that was deleted is gone for good. */
  AccessorDeleted: { kind: "access"; fields: { accessorId: string } };
  /** The reference was made after the token was issued. */
  TokenOlderThanReference: { kind: "access"; fields: object };
  /** An earlier upload of this blob holds other bytes. */
  ChunkConflict: { kind: "conflict"; fields: { blobId: string } };
  /** An earlier upload of this blob announced another size, or another blob has this id. */
  SessionMismatch: { kind: "conflict"; fields: { size: number } };
  /** `HashMismatch`, `Aborted`, `Expired`, `UserDeleted`, `AccessorDeleted` or `Fault`. */
  UploadGone: { kind: "conflict"; fields: { reason: string } };
  /** No bucket has room: `excluded` of them were full when they were asked. */
  NoBucketWithRoom: { kind: "conflict"; fields: { excluded: number } };
  /**
   * A canister did not take the call, and taking it again would not help. `status` and `body` (up to 500 characters)
   * are there where the network answered with an HTTP error.
   */
  CallFailed: {
    kind: "network";
    fields: { canister: string; method: string; reason: string; status?: number; body?: string };
  };
  /** Trying again did not help for so long; `last` is the last answer. */
  GaveUp: { kind: "network"; fields: { seconds: number; last: string } };
  /** The canister's interface is not the one that this library was built for. */
  InterfaceMismatch: { kind: "network"; fields: { canister: string; method: string } };
  /** What the bucket sent is not the blob. */
  WrongBytes: { kind: "integrity"; fields: { bucket: string; blobId: string } };
  /** Not encrypted by this library, or damaged. */
  NotEncrypted: { kind: "integrity"; fields: { reason: string } };
  /** None of the blob's wrapped keys opens with the key provider. */
  WrongKey: { kind: "access"; fields: { provider: string } };
  /** Encrypting needs `WebCrypto`, hashing large blobs and downloads in a page `WebAssembly`. */
  NotSupported: { kind: "platform"; fields: { feature: "WebCrypto" | "WebAssembly" } };
}

export type ErrorCode = keyof ErrorCatalogue;

/** The figures that come with a code. */
export type ErrorFields<C extends ErrorCode> = Readonly<ErrorCatalogue[C]["fields"]>;

const KINDS: { readonly [C in ErrorCode]: ErrorCatalogue[C]["kind"] } = {
  InvalidBlobId: "argument",
  InvalidSize: "argument",
  InvalidChunkIndex: "argument",
  InvalidRange: "argument",
  InvalidPrincipal: "argument",
  InvalidToken: "argument",
  InvalidGateway: "argument",
  InvalidMimeType: "argument",
  InvalidName: "argument",
  InvalidAccessors: "argument",
  InvalidOption: "argument",
  BlobTooLarge: "limit",
  AllowanceExceeded: "limit",
  TooManyOpenUploads: "limit",
  TooManyReferences: "limit",
  SizeMismatch: "source",
  SourceUnreadable: "source",
  SourceChanged: "source",
  SourceConsumed: "source",
  HashMismatch: "source",
  ChunkMismatch: "source",
  SignInRefused: "access",
  NotRegistered: "access",
  NotAuthorized: "access",
  TokenRefused: "access",
  NotFound: "access",
  AccessorDeleted: "access",
  TokenOlderThanReference: "access",
  ChunkConflict: "conflict",
  SessionMismatch: "conflict",
  UploadGone: "conflict",
  NoBucketWithRoom: "conflict",
  CallFailed: "network",
  GaveUp: "network",
  InterfaceMismatch: "network",
  WrongBytes: "integrity",
  NotEncrypted: "integrity",
  WrongKey: "access",
  NotSupported: "platform",
};

/**
 * Thrown for everything that this library itself finds wrong. An abort is not among these: it
 * rejects with the signal's own reason, as the platform's functions do.
 */
export class OpenStorageError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "OpenStorageError";
  readonly kind: ErrorCatalogue[C]["kind"];

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

/** What a program without types may have left out. @throws `InvalidOption` */
export function checkOptions(options: unknown): void {
  if (typeof options === "object" && options !== null) return;
  throw new OpenStorageError("InvalidOption", "pass the options: an object as the last argument", { option: "options" });
}
