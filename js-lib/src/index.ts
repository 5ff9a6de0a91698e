/** What runs everywhere. Files on disk: `@openstorage/client/node`. */

export { type BlobId, blobIdFromBytes, blobIdToBytes, isBlobId, parseBlobId } from "./blob.js";
export {
  type Chunk,
  type ChunkRange,
  checkSize,
  chunkAt,
  chunkCount,
  planChunks,
} from "./chunks.js";
export {
  type AnyOpenStorageError,
  type ErrorCode,
  type ErrorFields,
  type ErrorKind,
  isOpenStorageError,
  OpenStorageError,
} from "./errors.js";
export { type HashOptions, type HashProgress, hashSource } from "./hash.js";
export { BLOB_BYTES_MAX, CHUNK_BYTES, TOKEN_CHARS_MAX } from "./limits.js";
export { type Source, type StreamSource, sourceOf, sourceOfStream } from "./source.js";
export {
  type BlobUrlOptions,
  type BlobUrlParts,
  blobUrl,
  type PrincipalLike,
  type UrlForm,
} from "./url.js";
