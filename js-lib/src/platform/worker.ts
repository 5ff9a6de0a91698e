/** Hashing out of the page's way. */

import { type BlobId, blobIdFromBytes } from "../blob.js";
import { HASH_WORKER_CODE } from "../generated/hash-worker-code.js";
import type { HashOptions } from "../hash.js";
import type { HashAnswer } from "../hash-worker.js";
import { unreadable } from "../source.js";

/** How a worker is made that runs the module `@openstorage/client/hash-worker`. */
export type MakeWorker = () => Worker;

let make: MakeWorker | undefined;

/**
 * Makes hashes run in workers of the app's own, where the page's Content Security Policy forbids
 * workers from `blob:`.
 *
 * ```ts
 * setHashWorker(() => new Worker(new URL("@openstorage/client/hash-worker", import.meta.url), { type: "module" }));
 * ```
 */
export function setHashWorker(makeWorker: MakeWorker): void {
  make = makeWorker;
}

/** No worker can hash here: hash on the page, in turns. */
export class NoWorker extends Error {}

/** @throws {@link NoWorker}; `SourceUnreadable`; the signal's reason */
export async function hashInWorker(
  blob: Blob,
  name: string,
  { signal, onProgress }: HashOptions,
): Promise<BlobId> {
  signal?.throwIfAborted();
  const worker = start();
  try {
    return await new Promise((resolve, reject) => {
      let heard = false;
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      // Before the first answer: the worker's script was refused.
      worker.onerror = (event) => {
        event.preventDefault();
        reject(heard ? unreadable(name, event.message) : new NoWorker(event.message));
      };
      worker.onmessage = ({ data }: MessageEvent<HashAnswer>) => {
        heard = true;
        const told = (bytesDone: number) => onProgress?.({ bytesDone, bytesTotal: blob.size });
        try {
          if ("noHasher" in data) return reject(new NoWorker(data.noHasher));
          if ("error" in data) return reject(unreadable(name, data.error));
          if ("bytesDone" in data) return told(data.bytesDone);
          told(blob.size);
          resolve(blobIdFromBytes(data.digest));
        } catch (error) {
          reject(error);
        }
      };
      worker.postMessage(blob);
    });
  } finally {
    worker.terminate();
  }
}

function start(): Worker {
  try {
    if (make) return make();
    const url = URL.createObjectURL(new Blob([HASH_WORKER_CODE], { type: "text/javascript" }));
    try {
      return new Worker(url);
    } finally {
      URL.revokeObjectURL(url);
    }
  } catch (cause) {
    throw new NoWorker("no worker", { cause });
  }
}
