/** How far a long work has come, and how fast. */

/**
 * - `hashing`: the bytes are read once for the blob's id, which must be known before the first push.
 * - `uploading`: chunks are on their way.
 * - `verifying`: all are in; the bucket hashes a large blob over several messages.
 * - `downloading`: chunks come back.
 */
export type Phase = "hashing" | "uploading" | "verifying" | "downloading";

export interface Progress {
  readonly phase: Phase;
  /** Of this phase. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Over the last few seconds of this phase. */
  readonly bytesPerSecond: number;
}

/** Seconds over which the rate is measured. */
const WINDOW_MS = 5_000;

/** Turns counts of bytes into {@link Progress}. */
export class Meter {
  #samples: { atMs: number; bytes: number }[] = [];
  #phase: Phase | undefined;

  constructor(private readonly nowMs: () => number = () => performance.now()) {}

  read(phase: Phase, bytesDone: number, bytesTotal: number): Progress {
    const atMs = this.nowMs();
    if (phase !== this.#phase) {
      this.#phase = phase;
      this.#samples = [];
    }
    this.#samples.push({ atMs, bytes: bytesDone });
    while (this.#samples.length > 2 && atMs - this.#samples[1]!.atMs > WINDOW_MS) {
      this.#samples.shift();
    }
    const first = this.#samples[0]!;
    const seconds = (atMs - first.atMs) / 1000;
    // Chunks that are thrown away and sent again may take the count back.
    const bytesPerSecond = seconds > 0 ? Math.max(0, (bytesDone - first.bytes) / seconds) : 0;
    return { phase, bytesDone, bytesTotal, bytesPerSecond };
  }
}
