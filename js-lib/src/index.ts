/** What runs everywhere. Files on disk: `@openstorage/client/node`. Elements: `@openstorage/client/elements`. */

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
  type ErrorCatalogue,
  type ErrorCode,
  type ErrorFields,
  type ErrorKind,
  isOpenStorageError,
  OpenStorageError,
} from "./errors.js";
export type { ChangesMissed, EventsOptions, FileChange, StorageEvent } from "./events.js";
export { type HashOptions, type HashProgress, hashSource } from "./hash.js";
export { BLOB_BYTES_MAX, CERTIFIED_GET_BYTES_MAX, CHUNK_BYTES, POSSESSION_CHUNKS_MAX, TOKEN_CHARS_MAX } from "./limits.js";
export { type Source, type StreamSource, sourceOf, sourceOfStream } from "./source.js";
export {
  type BlobUrlOptions,
  type BlobUrlParts,
  blobUrl,
  type PrincipalLike,
  type UrlForm,
} from "./url.js";

export {
  BlobCache,
  CACHE_BYTES_MAX,
  type CacheEntry,
  type CacheStore,
  MemoryCacheStore,
} from "./cache.js";
export type { ByteRange, DownloadOptions, ReadOptions, TokenSource } from "./download.js";
export { type Cost, costOf } from "./estimate.js";
export type { Described } from "./encryption.js";
export { type KeyProvider, passphrase, rawKey } from "./keys.js";
export { OpenStorage } from "./open-storage.js";
export type { OpenUpload, UploadsOptions } from "./open-uploads.js";
export { type MakeWorker, setHashWorker } from "./platform/worker.js";
export type { Phase, Progress } from "./progress.js";
export { isPlayed, type RangedBlob, RangeWorker, type RangeWorkerOptions, startRangeWorker } from "./ranges.js";
export { type BlobReference, referenceFromCandid, referenceToCandid } from "./reference.js";
export { MemoryResumeStore, type ResumeRecord, resumeKey, type ResumeStore } from "./resume.js";
export type {
  DeleteOptions,
  Estimate,
  ForwardOptions,
  OpenStorageOn,
  OpenStorageOptions,
  UnfinishedUpload,
  UrlOptions,
  UserAllowance,
} from "./storage.js";
export {
  type AgentLike,
  agentTransport,
  CallError,
  type CallErrorKind,
  type HttpAnswer,
  type Transport,
} from "./transport.js";
export { Upload, type UploadData, type UploadOptions, type UploadState } from "./upload.js";
