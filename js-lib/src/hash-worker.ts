/**
 * Hashes a `Blob` in a worker. Bundled into one text by `scripts/worker.mjs`; an app whose Content
 * Security Policy forbids workers from `blob:` serves this module itself.
 */

import { createSHA256 } from "hash-wasm";

/** What the worker answers, any number of `bytesDone` and one of the others. */
export type HashAnswer =
  | { readonly bytesDone: number }
  | { readonly digest: Uint8Array }
  | { readonly error: string };

/** Bytes between two reports. */
const REPORT_BYTES = 4_000_000;

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<Blob>) => void) | null;
  postMessage(answer: HashAnswer): void;
};

scope.onmessage = ({ data }) => {
  hash(data).catch((error: unknown) => scope.postMessage({ error: String(error) }));
};

async function hash(blob: Blob): Promise<void> {
  const hasher = await createSHA256();
  const reader = blob.stream().getReader();
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
  if (bytesDone !== blob.size) throw new Error(`read ${bytesDone} of ${blob.size} bytes`);
  scope.postMessage({ digest: hasher.digest("binary") });
}
