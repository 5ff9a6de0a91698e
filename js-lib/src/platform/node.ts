/** The library in Node. */

import { createHash } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

import { type BlobId, parseBlobId } from "../blob.js";
import { FolderCacheStore, FolderResumeStore } from "../folder.js";
import { fileSource } from "../node.js";
import { readPieces } from "../source.js";
import type { Hasher, Platform } from "./platform.js";

/** Bytes between two reports. */
const REPORT_BYTES = 2_000_000;

function hasher(): Hasher {
  const hash = createHash("sha256");
  return {
    update: (bytes) => void hash.update(bytes),
    digest: () => parseBlobId(hash.digest("hex")),
  };
}

/** As the XDG base directory specification has it. */
function folder(variable: string, fallback: string): string {
  return join(process.env[variable] || join(homedir(), fallback), "openstorage");
}

export const platform: Platform = {
  // OpenSSL hashes with the processor's own instructions; the reads in between let other work run.
  async hash(source, { signal, onProgress }): Promise<BlobId> {
    const hash = hasher();
    const bytesTotal = source.size;
    let bytesDone = 0;
    let told = 0;
    for await (const piece of readPieces(source, signal)) {
      hash.update(piece);
      bytesDone += piece.byteLength;
      if (bytesDone - told < REPORT_BYTES || bytesDone === bytesTotal) continue;
      told = bytesDone;
      onProgress?.({ bytesDone, bytesTotal });
      // A source in memory never leaves the microtask queue by itself.
      await new Promise((resolve) => setImmediate(resolve));
    }
    signal?.throwIfAborted();
    onProgress?.({ bytesDone, bytesTotal });
    return hash.digest();
  },

  hasher: async () => hasher(),

  async spool(source, signal) {
    const dir = await mkdtemp(join(tmpdir(), "openstorage-"));
    const release = () => rm(dir, { recursive: true, force: true });
    try {
      const path = join(dir, "stream");
      const file = await open(path, "wx", 0o600);
      try {
        for await (const piece of readPieces(source, signal)) await file.writeFile(piece);
      } finally {
        await file.close();
      }
      return { source: await fileSource(path), release };
    } catch (error) {
      await release();
      throw error;
    }
  },

  resumeStore: () => new FolderResumeStore(join(folder("XDG_STATE_HOME", ".local/state"), "uploads")),
  cacheStore: () => new FolderCacheStore(folder("XDG_CACHE_HOME", ".cache")),
};
