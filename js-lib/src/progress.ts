/** How far a long work has come, and how fast. */

import { clock } from "./clock.js";

/**
 * - `hashing`: the bytes are read once for the blob's id, which must be known before the first push.
 * - `uploading`: chunks are on their way.
 * - `verifying`: all are in; the bucket hashes a large blob over several messages.
 * - `downloading`: chunks come back.
 */
export type Phase = "hashing" | "uploading" | "verifying" | "downloading";

export interface Progress {
  readonly phase: Phase;
  /**
   * Of this phase; never fewer than before. While `uploading`, bytes that have gone out count, where the platform tells of
   * them, else chunks that have arrived; all are done once the bucket has them.
   */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Over the last few seconds of this phase; falls while nothing moves. */
  readonly bytesPerSecond: number;
  /** The network is waited for: it has failed, or nothing has moved for ten seconds. */
  readonly waiting: boolean;
}

/** Time over which the rate is measured. */
const WINDOW_MS = 5_000;
/** Where bytes come in large pieces, the rate is measured over so many of them, even if that is longer. */
const PIECES_MIN = 2;
const STILL_MS = 10_000;

/** Turns counts of bytes into {@link Progress}. */
export class Meter {
  /** When the count has changed, the first one when the phase began. */
  #samples: { readonly atMs: number; readonly bytes: number }[] = [];
  #phase: Phase = "hashing";
  #bytesTotal = 0;
  #isFailing = false;

  constructor(private readonly nowMs: () => number = () => clock.nowMs()) {}

  read(phase: Phase, bytesDone: number, bytesTotal: number): Progress {
    if (phase !== this.#phase) this.#samples = [];
    this.#phase = phase;
    this.#bytesTotal = bytesTotal;
    const last = this.#samples.at(-1)?.bytes ?? -1;
    // Chunks that are sent again take nothing back: the count stands still meanwhile.
    if (bytesDone > last) this.#samples.push({ atMs: this.nowMs(), bytes: bytesDone });
    return this.now();
  }

  /** The network has failed, or works again. */
  failing(isFailing: boolean): Progress {
    this.#isFailing = isFailing;
    return this.now();
  }

  /** The progress as it is at this moment, with nothing new. */
  now(): Progress {
    const nowMs = this.nowMs();
    const { atMs, bytes } = this.#samples.at(-1) ?? { atMs: nowMs, bytes: 0 };
    const waiting = this.#isFailing || (this.#phase === "uploading" && nowMs - atMs >= STILL_MS);
    const kept = waiting ? 1 : PIECES_MIN + 1;
    while (this.#samples.length > kept && nowMs - this.#samples[1]!.atMs > WINDOW_MS) this.#samples.shift();
    const [first = { atMs: nowMs, bytes }] = this.#samples;
    const seconds = (nowMs - first.atMs) / 1000;
    const bytesPerSecond = seconds > 0 ? (bytes - first.bytes) / seconds : 0;
    return { phase: this.#phase, bytesDone: bytes, bytesTotal: this.#bytesTotal, bytesPerSecond, waiting };
  }
}
