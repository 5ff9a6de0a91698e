/** A blob's name. */

import { OpenStorageError } from "./errors.js";

declare const brand: unique symbol;

/**
 * The SHA-256 of a blob's bytes: its name everywhere. It is a string of 64 lower-case hex
 * characters, so that it compares with `===`, is a key of a `Map`, and survives JSON. Only the
 * functions of this library make one.
 */
export type BlobId = string & { readonly [brand]: "BlobId" };

const CANONICAL = /^[0-9a-f]{64}$/;

/** Whether a text is 64 lower-case hex characters; upper case is not canonical. */
export function isBlobId(text: string): text is BlobId {
  return typeof text === "string" && text.length === 64 && CANONICAL.test(text);
}

/**
 * The blob id that a text holds.
 *
 * @throws `InvalidBlobId` unless it is 64 lower-case hex characters, nothing around them.
 */
export function parseBlobId(text: string): BlobId {
  if (isBlobId(text)) return text;
  throw invalid("64 lower-case hex characters");
}

/**
 * The blob id whose 32 bytes these are, as Candid carries it.
 *
 * @throws `InvalidBlobId` for another length.
 */
export function blobIdFromBytes(bytes: Uint8Array): BlobId {
  if (bytes?.length !== 32) throw invalid("32 bytes");
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text as BlobId;
}

/** The 32 bytes of a blob id, as Candid carries it. */
export function blobIdToBytes(id: BlobId): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: 32 }, (_, i) => Number.parseInt(id.slice(2 * i, 2 * i + 2), 16));
}

function invalid(expected: string): OpenStorageError<"InvalidBlobId"> {
  return new OpenStorageError(
    "InvalidBlobId",
    `a blob id is ${expected}: the SHA-256 of the blob's bytes`,
    { expected },
  );
}
