/** What the canisters refuse, as errors that say what to do. */

import type { Principal } from "@icp-sdk/core/principal";

import { type BlobId, blobIdFromBytes } from "./blob.js";
import type { Allowance } from "./candid/data_bucket.did.js";
import { type ErrorCode, type ErrorFields, OpenStorageError } from "./errors.js";

/** A Candid variant as the bindings give it: one key, which is the case. */
export type Variant = object;

/** Every key of every case of a union. */
type Case<V> = V extends unknown ? keyof V & string : never;
type Payload<V, C extends string> = V extends { [K in C]: infer P } ? P : never;

/** The name of the case at hand. */
export function caseOf<V extends Variant>(variant: V): Case<V> {
  return Object.keys(variant)[0] as Case<V>;
}

/** What the case `name` carries; `undefined` where another case is at hand. */
export function payloadOf<V extends Variant, C extends Case<V>>(
  variant: V,
  name: C,
): Payload<V, C> | undefined {
  return (variant as Record<string, unknown>)[name] as Payload<V, C> | undefined;
}

/** What a refusal is about, for the sentence. */
export interface Subject {
  readonly canister: string;
  readonly method: string;
  readonly blobId?: BlobId;
  /** Bytes of the blob. */
  readonly size?: number;
}

/** The figures of all refusals. */
interface Figures extends Partial<Allowance> {
  max?: number | bigint;
  size?: bigint;
  ms?: bigint;
  actual?: Uint8Array;
  attempts_left?: number;
  accessor_id?: Principal;
}

/**
 * The error for a refusal that calling again does not change. Cases that the library deals with itself
 * get here only once it has given up on them.
 */
export function refusal(variant: Variant, subject: Subject): OpenStorageError {
  const name = caseOf(variant) as string;
  const payload: unknown = Object.values(variant)[0];
  const problem = name === "InvalidToken" && caseOf(payload as Variant);
  if (problem) return tokenRefused(problem);
  const make = REFUSALS[name];
  if (make) return make((payload ?? {}) as Figures, subject);
  return error("CallFailed", `${subject.canister} refused ${subject.method}: ${name}`, {
    canister: subject.canister,
    method: subject.method,
    reason: name,
  });
}

function error<C extends ErrorCode>(
  code: C,
  message: string,
  fields: ErrorFields<C>,
): OpenStorageError {
  return new OpenStorageError(code, message, fields) as OpenStorageError;
}

const MB = 1_000_000;
const mb = (bytes: number) => `${(bytes / MB).toFixed(bytes < 10 * MB ? 1 : 0)} MB`;

function allowanceExceeded(figures: Figures, { size }: Subject): OpenStorageError {
  const byteLimit = Number(figures.byte_limit);
  const blob = size === undefined ? "the blob" : `this file of ${mb(size)}`;
  if (figures.bytes_used === undefined) {
    const message = `${blob} is larger than your whole allowance of ${mb(byteLimit)}: choose a smaller one, or ask the app for more`;
    return error("AllowanceExceeded", message, { byteLimit });
  }
  const bytesUsed = Number(figures.bytes_used);
  const bytesReserved = Number(figures.bytes_reserved);
  const leasedElsewhere = Number(figures.leased_elsewhere);
  const held = bytesReserved > 0 ? ` and ${mb(bytesReserved)} are held by uploads that are not finished` : "";
  const first = bytesReserved > 0 ? "Finish or discard these (uploads() lists them), delete" : "Delete";
  const message =
    `${blob} does not fit: of your allowance of ${mb(byteLimit)}, ${mb(bytesUsed)} are used${held}. ` +
    `${first} something, or ask the app for more`;
  return error("AllowanceExceeded", message, { byteLimit, bytesUsed, bytesReserved, leasedElsewhere });
}

export function tokenRefused(problem: string): OpenStorageError {
  const message =
    TOKEN_PROBLEMS[problem] ?? `the token opens nothing (${problem}): ask the app for another`;
  return error("TokenRefused", message, { problem });
}

const TOKEN_PROBLEMS: Readonly<Record<string, string>> = {
  Expired: "the token has expired: ask the app for a fresh one",
  Revoked: "the token was revoked: ask the app whether you may still see this, and for another",
  NotAuthentic: "the token was issued for another accessor, blob, bucket or right: use the one that came with this reference",
  UnknownIssuer: "the bucket does not know the token's issuer: register the app with the index (register_issuer)",
  KeysNotReady: "the bucket has not drawn its secret yet: try again in a moment",
  InvalidTimes: "the token is from the future or lives too long: check the issuer's clock",
  Malformed: "this is no access token: pass it as the app's canister gave it",
};

const REFUSALS: Readonly<Record<string, (figures: Figures, subject: Subject) => OpenStorageError>> = {
  NotRegistered: () =>
    error("NotRegistered", "the caller is no registered user: the app registers it with the index (register_user)", {}),
  NotAuthorized: () =>
    error("NotAuthorized", "the caller may not do this: sign in, and use a token that was issued to this principal", {}),
  AllowanceExceeded: allowanceExceeded,
  BlobTooLarge: ({ max }, { size = 0 }) =>
    error("BlobTooLarge", `a blob has at most ${mb(Number(max))}, not ${mb(size)}`, { size, max: Number(max) }),
  TooManyOpenUploads: ({ max }) =>
    error("TooManyOpenUploads", `${max} uploads are open: finish or discard one (uploads() lists them)`, { max: Number(max) }),
  TooManyReferences: ({ max }) =>
    error("TooManyReferences", `${max} references are all that the caller's limit allows in this bucket: delete some, or ask the app for a larger limit`, { max: Number(max) }),
  InvalidMimeType: ({ max }) => invalidMimeType(Number(max)),
  InvalidName: ({ max }) => invalidName(Number(max)),
  InvalidAccessors: ({ max }) => invalidAccessors(Number(max)),
  AccessorDeleted: (figures) => {
    const accessorId = figures.accessor_id?.toText() ?? "";
    return error("AccessorDeleted", `the accessor ${accessorId} was deleted for good: use another`, { accessorId });
  },
  NotFound: (_, { blobId = "" }) =>
    error("NotFound", `no blob ${blobId} is visible there: it was deleted, or never shared with this accessor`, { blobId }),
  TokenOlderThanReference: () =>
    error("TokenOlderThanReference", "the blob was shared again after the token was issued: ask the app for a fresh one", {}),
  ChunkConflict: (_, { blobId = "" }) =>
    error("ChunkConflict", "an earlier upload of this blob holds other bytes, and is discarded now: upload it again", { blobId }),
  ChunkMismatch: ({ attempts_left = 0 }) =>
    error("ChunkMismatch", `the source is not the stored blob: it changed while it was read; upload it again (${attempts_left} attempts left today)`, { attemptsLeft: attempts_left }),
  SessionMismatch: ({ size }) =>
    error("SessionMismatch", `an earlier upload of this blob announced ${size} bytes, and is discarded now: upload it again`, { size: Number(size) }),
  HashMismatch: ({ actual }, { blobId = "" }) => {
    const found = actual ? blobIdFromBytes(actual) : "";
    return error("HashMismatch", "the file changed while it was read: upload it again", { expected: blobId, actual: found });
  },
};

export function uploadGone(reason: string): OpenStorageError {
  const why: Record<string, string> = {
    HashMismatch: "its chunks did not hash to the blob's id; the file changed while it was read",
    Aborted: "it was aborted",
    Expired: "nothing arrived for a day, or too little on each day",
    UserDeleted: "the user was deleted",
    AccessorDeleted: "everybody whom it was for was deleted",
    Fault: "the bucket failed to go on with it",
  };
  return error("UploadGone", `the upload is gone: ${why[reason] ?? reason}. Upload it again`, { reason });
}

export function invalidMimeType(max: number): OpenStorageError {
  const message = `a MIME type is type/subtype, in at most ${max} bytes`;
  return error("InvalidMimeType", message, { max });
}

export function invalidName(max: number): OpenStorageError {
  const message = `a file name has at most ${max} bytes`;
  return error("InvalidName", message, { max });
}

export function invalidAccessors(max: number): OpenStorageError {
  const message = `a blob is for 1 to ${max} accessors, none of them anonymous or the management canister: pass accessorIds, such as the accessor_id of the chat`;
  return error("InvalidAccessors", message, { max });
}
