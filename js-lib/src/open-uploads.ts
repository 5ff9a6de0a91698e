/** The caller's unfinished uploads, as the buckets have them: from whatever device they were begun. */

import { type BlobId, blobIdFromBytes } from "./blob.js";
import type { OpenUpload as CandidUpload } from "./candid/data_bucket.did.js";
import type { Context } from "./context.js";
import { type ResumeRecord, resumeKey } from "./resume.js";
import { Semaphore } from "./semaphore.js";

/** Buckets that are asked at the same time. */
const ASKED_MAX = 8;
/** More than a bucket lets one user have open. */
const LIMIT = 1_000;

/** An upload that is not finished. `OpenStorage.discardUpload` gives back what it holds. */
export interface OpenUpload {
  readonly blobId: BlobId;
  readonly bucket: string;
  /** Bytes of the whole. */
  readonly size: number;
  /** Bytes that the bucket has. */
  readonly bytesDone: number;
  /** Bytes of the caller's allowance that it holds. */
  readonly bytesReserved: number;
  /** When the last chunk came, in milliseconds since 1970. */
  readonly touchedMs: number;
  /** When the bucket drops it, if nothing comes until then. */
  readonly expiresMs: number;
  /** What is remembered here of it, its name for one, where it was begun on this device. */
  readonly record?: ResumeRecord;
}

export interface UploadsOptions {
  readonly signal?: AbortSignal;
  /** Told of each bucket that does not answer: its uploads are not in the list. Without it such a bucket is an error. */
  readonly onUnreachable?: (bucket: string, error: unknown) => void;
}

/** @throws `GaveUp`, `CallFailed`; the signal's reason */
export async function openUploads(context: Context, { signal, onUnreachable }: UploadsOptions): Promise<OpenUpload[]> {
  const { index, parts } = context;
  const options = { signal, patienceMs: parts.patienceMs };
  const buckets = await index.call("my_buckets", [], options);
  const principal = (await context.principal()).toText();
  const records = new Map((await parts.resumeStore.all()).map((record) => [resumeKey(record), record]));
  const asked = new Semaphore(ASKED_MAX);
  const listed = buckets.map(async (id) => {
    const bucket = id.toText();
    try {
      const found = await asked.run(() => context.bucket(bucket).call("my_uploads", [{ after: [], limit: LIMIT }], options), signal);
      return found.map((upload) => openUpload(bucket, upload, (blobId) => records.get(resumeKey({ principal, index: index.id, blobId }))));
    } catch (error) {
      signal?.throwIfAborted();
      if (!onUnreachable) throw error;
      onUnreachable(bucket, error);
      return [];
    }
  });
  return (await Promise.all(listed)).flat();
}

function openUpload(bucket: string, upload: CandidUpload, recordOf: (blobId: BlobId) => ResumeRecord | undefined): OpenUpload {
  const blobId = blobIdFromBytes(upload.blob_id);
  const record = recordOf(blobId);
  return {
    blobId,
    bucket,
    size: Number(upload.size),
    bytesDone: Number(upload.bytes_arrived),
    bytesReserved: Number(upload.bytes_reserved),
    touchedMs: Number(upload.touched_ms),
    expiresMs: Number(upload.expires_ms),
    ...(record && { record }),
  };
}
