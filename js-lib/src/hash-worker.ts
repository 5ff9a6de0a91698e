/**
 * Hashes a `Blob` in a worker. Bundled into one text by `scripts/worker.mjs`; an app whose Content
 * Security Policy forbids workers from `blob:` serves this module itself.
 */

import { createSHA256, type IHasher } from "hash-wasm";

/** What the worker answers, any number of `bytesDone` and one of the others. */
export type HashAnswer =
  | { readonly bytesDone: number }
  | { readonly digest: Uint8Array }
  /** The bytes cannot be read. */
  | { readonly error: string }
  /** There is nothing to hash them with. */
  | { readonly noHasher: string };

/** Bytes between two reports. */
const REPORT_BYTES = 4_000_000;

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<Blob>) => void) | null;
  postMessage(answer: HashAnswer): void;
};

scope.onmessage = async ({ data }) => {
  try {
    const hasher = await createSHA256();
    await hash(data, hasher).catch((error: unknown) => scope.postMessage({ error: String(error) }));
  } catch (error) {
    scope.postMessage({ noHasher: String(error) });
  }
};

/** What is being read: Chromium collects a stream to which nothing refers, with all that waits for it. */
const reading = new Set<unknown>();

async function hash(blob: Blob, hasher: IHasher): Promise<void> {
  const reader = blob.stream().getReader();
  reading.add(reader);
  let bytesDone = 0;
  let told = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    // Some streams give the whole as one piece.
    for (let at = 0; at < value.byteLength; at += REPORT_BYTES) {
      const part = value.subarray(at, at + REPORT_BYTES);
      hasher.update(part);
      bytesDone += part.byteLength;
      if (bytesDone - told < REPORT_BYTES) continue;
      told = bytesDone;
      scope.postMessage({ bytesDone });
    }
  }
  reading.delete(reader);
  if (bytesDone !== blob.size) throw new Error(`read ${bytesDone} of ${blob.size} bytes`);
  scope.postMessage({ digest: hasher.digest("binary") });
}
