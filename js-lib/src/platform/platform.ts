/** What differs between a browser and Node. `browser.ts` and `node.ts` in this folder only wire. */

import type { BlobId } from "../blob.js";
import type { CacheStore } from "../cache.js";
import type { HashOptions } from "../hash.js";
import type { ResumeStore } from "../resume.js";
import type { Source, StreamSource } from "../source.js";

/** SHA-256 of bytes that come one after another. */
export interface Hasher {
  update(bytes: Uint8Array): void;
  digest(): BlobId | Promise<BlobId>;
}

/** A copy of a stream that can be read anywhere and again. */
export interface Spooled {
  readonly source: Source;
  /** The copy is not needed any more. */
  release(): Promise<void>;
}

export interface Platform {
  /** As `hashSource`, as fast as the platform can and out of the way of everything else. */
  hash(source: StreamSource, options: HashOptions): Promise<BlobId>;
  /** Of `size` bytes. */
  hasher(size: number): Promise<Hasher>;
  /** A stream has to be read twice: once for its id, once for its chunks. */
  spool(source: StreamSource, signal: AbortSignal | undefined): Promise<Spooled>;
  resumeStore(): ResumeStore;
  cacheStore(): CacheStore;
}
