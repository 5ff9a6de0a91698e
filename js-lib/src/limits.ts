/**
 * Bounds that the canisters keep too: the same figures stand in the Rust crate `openstorage-types`,
 * and `test/golden.json` holds both sides to them.
 */

/**
 * Bytes in every chunk but a blob's last. An ingress message of the Internet Computer carries up to
 * 2 MiB (2,097,152 bytes); the rest is left for the other arguments.
 */
export const CHUNK_BYTES = 2_000_000;

/** The largest blob: 100 GB. */
export const BLOB_BYTES_MAX = 100_000_000_000;

/** Characters of an access token. */
export const TOKEN_CHARS_MAX = 192;
