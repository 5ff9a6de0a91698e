/** A module of its own, imported when it is needed: bundlers take one hasher out of the many in there, and not all. */

export { createSHA256 } from "hash-wasm";
