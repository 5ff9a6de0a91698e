/**
 * Bounds that the canisters keep too: the same figures stand in the Rust crate `openstorage-types`,
 * and `test/golden.json` holds both sides to them.
 */

/**
 * Bytes in every chunk but a blob's last. An ingress message of the Internet Computer carries up to
 * 2 MiB (2,097,152 bytes); the rest is left for the other arguments.
 */
export const CHUNK_BYTES = 2_000_000;

/**
 * Bytes of the largest blob that the certified URL serves to a plain GET: the Internet Computer's gateways join up to
 * 1,000 parts of an answer.
 */
export const CERTIFIED_GET_BYTES_MAX = 1_000 * CHUNK_BYTES;

/** The largest blob: 100 GB. */
export const BLOB_BYTES_MAX = 100_000_000_000;

/** Characters of an access token. */
export const TOKEN_CHARS_MAX = 192;

/** Accessors that one upload may name. */
export const ACCESSORS_MAX = 32;

/** Bytes of a MIME type, and of one with its parameters, which buckets drop. */
export const MIME_TYPE_BYTES_MAX = 127;
export const MIME_TYPE_GIVEN_BYTES_MAX = 1_024;

/** The type of what says nothing about itself, and of what is encrypted. */
export const PLAIN_TYPE = "application/octet-stream";

/** Bytes of a file name in UTF-8. A bucket shortens what is longer than 255 and keeps the extension. */
export const NAME_BYTES_MAX = 1_024;

/** Buckets that one question for a bucket may exclude. */
export const EXCLUDE_MAX = 32;

/** Chunks of a stored blob that a second uploader must show, at most. */
export const POSSESSION_CHUNKS_MAX = 24;
