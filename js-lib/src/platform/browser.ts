/** The library in a browser. */

import { type BlobId, blobIdFromBytes } from "../blob.js";
import { hashSource, isOneShot, oneShotHasher, wasmHasher } from "../hash.js";
import { readPieces, sourceOf } from "../source.js";
import { IdbCacheStore, IdbResumeStore } from "./idb.js";
import type { Hasher, Platform } from "./platform.js";
import { hashInWorker, NoWorker } from "./worker.js";

export const platform: Platform = {
  async hash(source, options): Promise<BlobId> {
    const { blob } = source;
    // WebCrypto hashes in a thread of its own already.
    if (isOneShot(source.size) || !blob || typeof Worker === "undefined") return hashSource(source, options);
    try {
      return await hashInWorker(blob, source.name, options);
    } catch (error) {
      if (error instanceof NoWorker) return hashSource(source, options);
      throw error;
    }
  },

  async hasher(size): Promise<Hasher> {
    // Nothing to load, and pages may forbid WebAssembly.
    if (isOneShot(size)) return oneShotHasher(size);
    const hasher = await wasmHasher();
    return {
      update: (bytes) => void hasher.update(bytes),
      digest: () => blobIdFromBytes(hasher.digest("binary")),
    };
  },

  async spool(source, signal) {
    // The browser moves blobs to its disk as it needs.
    const blobs: Blob[] = [];
    for await (const piece of readPieces(source, signal)) {
      blobs.push(new Blob([piece as Uint8Array<ArrayBuffer>]));
    }
    return { source: sourceOf(new Blob(blobs)), release: async () => {} };
  },

  resumeStore: () => new IdbResumeStore(),
  cacheStore: () => new IdbCacheStore(),
};
