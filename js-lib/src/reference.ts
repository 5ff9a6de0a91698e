/** Where a blob is: what an app keeps in its messages and records. */

import { Principal } from "@icp-sdk/core/principal";

import { type BlobId, blobIdFromBytes, blobIdToBytes, parseBlobId } from "./blob.js";
import type { BlobReference as CandidReference } from "./candid/data_bucket.did.js";
import { checkSize } from "./chunks.js";
import { OpenStorageError } from "./errors.js";
import type { PrincipalLike } from "./url.js";

/** Plain JSON; {@link referenceToCandid} makes of it what canisters take. */
export interface BlobReference {
  readonly blobId: BlobId;
  /** The canister that holds the blob. */
  readonly bucket: string;
  /** Bytes. */
  readonly size: number;
  readonly mimeType: string;
}

/** The same, where it can be one. @throws `InvalidOption`, `InvalidBlobId`, `InvalidPrincipal`, `InvalidSize`, `BlobTooLarge` */
export function checkReference(reference: BlobReference): BlobReference {
  if (typeof reference !== "object" || reference === null) {
    const message = "pass a reference, as an upload gives it";
    throw new OpenStorageError("InvalidOption", message, { option: "reference" });
  }
  parseBlobId(reference.blobId);
  toPrincipal(reference.bucket, "bucket");
  checkSize(reference.size);
  return reference;
}

/** What a canister takes, such as the chat in `send_message`. @throws as the functions that take references */
export function referenceToCandid(reference: BlobReference): CandidReference {
  checkReference(reference);
  return {
    blob_id: blobIdToBytes(reference.blobId),
    bucket: toPrincipal(reference.bucket, "bucket"),
    size: BigInt(reference.size),
    mime_type: String(reference.mimeType),
  };
}

/** Of what a canister gives, such as the chat in `messages`. */
export function referenceFromCandid(reference: CandidReference): BlobReference {
  return {
    blobId: blobIdFromBytes(reference.blob_id),
    bucket: reference.bucket.toText(),
    size: Number(reference.size),
    mimeType: reference.mime_type,
  };
}

/** @throws `InvalidPrincipal` */
export function toPrincipal(principal: PrincipalLike, argument: string): Principal {
  try {
    return Principal.fromText(typeof principal === "string" ? principal : principal.toText());
  } catch (cause) {
    const message = `${argument} is not the text of a principal`;
    throw new OpenStorageError("InvalidPrincipal", message, { argument }, { cause });
  }
}
