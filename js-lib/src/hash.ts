/** From bytes to a blob id, in bounded memory. */

import type { IHasher } from "hash-wasm";

import { type BlobId, blobIdFromBytes } from "./blob.js";
import { OpenStorageError } from "./errors.js";
import { readPieces, type StreamSource } from "./source.js";

/** How far a hash has come. */
export interface HashProgress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface HashOptions {
  /** An abort rejects with the signal's reason, at the latest after the next 2 MB. */
  readonly signal?: AbortSignal;
  /** Called about every 2 MB and at the end; `bytesDone` never falls. What it throws ends the hash. */
  readonly onProgress?: (progress: HashProgress) => void;
}

/**
 * Sources up to this size are read into memory and hashed in one go by WebCrypto, which is at least
 * twice as fast as WebAssembly but knows no streams. WebCrypto copies its input, so that a hash
 * takes up to twice this.
 */
export const ONE_SHOT_BYTES_MAX = 32_000_000;

/** Bytes hashed before other work (events, timers, painting) has its turn. */
const TURN_BYTES = 2_000_000;

/**
 * The id of the blob that a source holds: the SHA-256 of its bytes. Memory is bounded whatever the
 * size, and the event loop is let run in between.
 *
 * @throws `InvalidOption` for what is no source; `SizeMismatch` when it gives more or fewer bytes than it announced;
 * `SourceUnreadable`, `SourceChanged`, `SourceConsumed`; `NotSupported`; the signal's reason
 */
export async function hashSource(source: StreamSource, options: HashOptions = {}): Promise<BlobId> {
  if (typeof source?.stream !== "function") {
    throw new OpenStorageError("InvalidOption", "pass a source, such as sourceOf(bytes)", { option: "source" });
  }
  return isOneShot(source.size) ? hashInOneShot(source, options) : hashInStream(source, options);
}

/** Whether so many bytes are hashed by WebCrypto, which pages from http://192.168.… have not. */
export function isOneShot(size: number): boolean {
  return size <= ONE_SHOT_BYTES_MAX && globalThis.crypto?.subtle !== undefined;
}

/** By WebCrypto, of `size` bytes that come one after another. */
export function oneShotHasher(size: number): { update(bytes: Uint8Array): void; digest(): Promise<BlobId> } {
  const all = new Uint8Array(size);
  let at = 0;
  return {
    update(bytes) {
      all.set(bytes, at);
      at += bytes.byteLength;
    },
    digest: async () => blobIdFromBytes(new Uint8Array(await crypto.subtle.digest("SHA-256", all.subarray(0, at)))),
  };
}

/** By WebCrypto; the source must fit in memory. */
export async function hashInOneShot(source: StreamSource, options: HashOptions): Promise<BlobId> {
  const hasher = oneShotHasher(source.size);
  for await (const piece of readPieces(source, options.signal)) hasher.update(piece);
  const blobId = await hasher.digest();
  options.signal?.throwIfAborted();
  options.onProgress?.({ bytesDone: source.size, bytesTotal: source.size });
  return blobId;
}

/** By WebAssembly; the source may have any size. */
export async function hashInStream(source: StreamSource, options: HashOptions): Promise<BlobId> {
  const hasher = await wasmHasher();
  const bytesTotal = source.size;
  let bytesDone = 0;
  for await (const piece of readPieces(source, options.signal)) {
    for (let at = 0; at < piece.byteLength; ) {
      const room = TURN_BYTES - (bytesDone % TURN_BYTES);
      const part = piece.subarray(at, at + room);
      hasher.update(part);
      at += part.byteLength;
      bytesDone += part.byteLength;
      if (bytesDone % TURN_BYTES !== 0 || bytesDone === bytesTotal) continue;
      options.onProgress?.({ bytesDone, bytesTotal });
      await turnOfEventLoop();
      options.signal?.throwIfAborted();
    }
  }
  options.onProgress?.({ bytesDone, bytesTotal });
  return blobIdFromBytes(hasher.digest("binary"));
}

/**
 * Loaded when it is needed: most files are hashed in one go, most large ones in a worker.
 *
 * @throws `NotSupported`
 */
export async function wasmHasher(): Promise<IHasher> {
  try {
    const { createSHA256 } = await import("./wasm-hasher.js");
    return await createSHA256();
  } catch (cause) {
    const message = "the hasher cannot be loaded: load the page again, or let its policy allow WebAssembly (script-src 'wasm-unsafe-eval')";
    throw new OpenStorageError("NotSupported", message, { feature: "WebAssembly" }, { cause });
  }
}

/**
 * Lets everything else that waits run once. A source in memory answers without ever leaving the
 * microtask queue, and a page that hashes it would freeze. A message comes back sooner than a
 * timer, which browsers hold for 4 ms.
 */
function turnOfEventLoop(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
