/** How a blob is cut into chunks, and which of them are still to be sent. */

import { OpenStorageError } from "./errors.js";
import { BLOB_BYTES_MAX, CHUNK_BYTES } from "./limits.js";

/** One chunk of a blob: its bytes are `start .. end`, the end not included. */
export interface Chunk {
  readonly index: number;
  readonly start: number;
  readonly end: number;
}

/** Chunk indexes `start .. end`, the end not included: how a bucket says what is missing. */
export interface ChunkRange {
  readonly start: number;
  readonly end: number;
}

/**
 * A blob's size, when there can be such a blob.
 *
 * @param size bytes
 * @throws `InvalidSize` unless it is a whole number from 0 up; `BlobTooLarge` above
 * {@link BLOB_BYTES_MAX}.
 */
export function checkSize(size: number): number {
  // 2^60 is no safe integer but a size all the same: too large rather than malformed.
  if (!Number.isInteger(size) || size < 0) {
    throw new OpenStorageError("InvalidSize", `${size} is not a number of bytes`, { size });
  }
  if (size > BLOB_BYTES_MAX) {
    const message = `a blob has at most ${BLOB_BYTES_MAX} bytes, not ${size}`;
    throw new OpenStorageError("BlobTooLarge", message, { size, max: BLOB_BYTES_MAX });
  }
  return size;
}

/**
 * How many chunks a blob of `size` bytes has: `max(1, ⌈size / 2,000,000⌉)`. The empty blob is one
 * empty chunk.
 *
 * @throws as {@link checkSize}
 */
export function chunkCount(size: number): number {
  return Math.max(1, Math.ceil(checkSize(size) / CHUNK_BYTES));
}

/**
 * The bytes of chunk `index` in a blob of `size` bytes.
 *
 * @throws `InvalidChunkIndex` where there is no such chunk; as {@link checkSize}
 */
export function chunkAt(size: number, index: number): Chunk {
  const count = chunkCount(size);
  if (!Number.isInteger(index) || index < 0 || index >= count) {
    const message = `there is no chunk ${index} in a blob of ${count}`;
    throw new OpenStorageError("InvalidChunkIndex", message, { index, count });
  }
  const start = index * CHUNK_BYTES;
  return { index, start, end: Math.min(start + CHUNK_BYTES, size) };
}

/**
 * The chunks of a blob of `size` bytes that are still to be sent, ascending, each once.
 *
 * @param missing what `upload_status` answers, in any order; without it, all of them
 * @throws `InvalidRange` for a range outside the blob, before anything is yielded; as
 * {@link checkSize}
 */
export function planChunks(size: number, missing?: readonly ChunkRange[]): Iterable<Chunk> {
  const count = chunkCount(size);
  const ranges = [...(missing ?? [{ start: 0, end: count }])];
  for (const { start, end } of ranges) checkRange(start, end, count);
  ranges.sort((a, b) => a.start - b.start);
  return {
    *[Symbol.iterator]() {
      let next = 0;
      for (const range of ranges) {
        // Ranges may overlap: go on after what has been planned.
        next = Math.max(next, range.start);
        for (; next < range.end; next++) yield chunkAt(size, next);
      }
    },
  };
}

/**
 * Makes sure that `start .. end` lies within `0 .. max`.
 *
 * @throws `InvalidRange`
 */
export function checkRange(start: number, end: number, max: number): void {
  const whole = Number.isInteger(start) && Number.isInteger(end);
  if (whole && 0 <= start && start <= end && end <= max) return;
  const message = `${start} to ${end} is not a range within 0 to ${max}`;
  throw new OpenStorageError("InvalidRange", message, { start, end, max });
}
