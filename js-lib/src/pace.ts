/**
 * How many chunks are on their way at the same time: as many as make the whole faster.
 *
 * One pace is shared by all uploads of an `OpenStorage`, so that ten files dropped at once do not push
 * ten times as hard as one. It climbs: after each window of chunks the number rises by one, is taken
 * back where that brought no more bytes a second, and is halved where a chunk got lost.
 */

const LIMIT_FIRST = 4;
/** A rise must bring so much more, or it was for nothing. */
const GAIN_MIN = 1.05;
/** A message costs as much time as so many bytes: small files are to count too. */
const MESSAGE_BYTES = 200_000;
/** Windows without another try after a rise that was for nothing, or a loss. */
const WINDOWS_HELD = 8;
/** A chunk that takes so many times longer than others did is taken for lost. */
const STALL_FACTOR = 8;
const STALL_MS_MIN = 30_000;
const STALL_MS_MAX = 300_000;

/** How a chunk's trip ended. */
export type Trip =
  | { readonly end: "arrived"; readonly bytes: number }
  /** No answer in time, or the connection broke. */
  | { readonly end: "lost" }
  /** Refused, aborted: says nothing about the network. */
  | { readonly end: "other" };

/** Somebody who waits for a slot. */
interface Waiter {
  readonly bytes: number;
  go(): void;
}

/** A slot for one chunk, to be given back. */
export interface Slot {
  done(trip: Trip): void;
}

export class Pace {
  #limit: number;
  #inFlight = 0;
  #bytesInFlight = 0;
  readonly #waiting: Waiter[] = [];
  #window = { startMs: 0, bytes: 0, trips: 0, wasFull: false };
  #rateBefore = 0;
  #rose = false;
  #held = 0;
  #cutAtMs = 0;
  #tripMs = 0;

  /**
   * @param limitMax chunks in flight, at most
   * @param bytesMax bytes in flight, at most, but for a chunk that is alone
   */
  constructor(
    private readonly limitMax: number,
    private readonly bytesMax = Number.POSITIVE_INFINITY,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    this.#limit = Math.min(LIMIT_FIRST, limitMax);
    this.#window.startMs = nowMs();
  }

  /** Chunks that may be in flight now. */
  get limit(): number {
    return this.#limit;
  }

  /** After how long a chunk that is sent for the `attempt`-th time, from 0, is taken for lost. */
  stallMs(attempt: number): number {
    const patientMs = Math.max(STALL_MS_MIN, STALL_FACTOR * this.#tripMs);
    return Math.min(STALL_MS_MAX, patientMs * 2 ** attempt);
  }

  /** Waits for a slot for so many bytes, first come first served. @throws the signal's reason */
  async slot(bytes: number, signal?: AbortSignal): Promise<Slot> {
    signal?.throwIfAborted();
    if (this.#waiting.length === 0 && this.#fits(bytes)) this.#enter(bytes);
    else await this.#turn(bytes, signal);
    const startMs = this.nowMs();
    let given = false;
    return {
      done: (trip) => {
        if (given) return;
        given = true;
        this.#inFlight--;
        this.#bytesInFlight -= bytes;
        this.#learn(trip, startMs);
        this.#wake();
      },
    };
  }

  get #isFull(): boolean {
    return this.#inFlight >= this.#limit;
  }

  #fits(bytes: number): boolean {
    return !this.#isFull && (this.#inFlight === 0 || this.#bytesInFlight + bytes <= this.bytesMax);
  }

  #enter(bytes: number): void {
    this.#inFlight++;
    this.#bytesInFlight += bytes;
  }

  /** Whoever is let in has its slot already. */
  #turn(bytes: number, signal?: AbortSignal): Promise<void> {
    // Who waits for memory would not go sooner if more chunks were let in.
    if (this.#isFull) this.#window.wasFull = true;
    return new Promise((resolve, reject) => {
      const waiter = {
        bytes,
        go: () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        },
      };
      const abort = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        this.#wake();
        reject(signal?.reason);
      };
      this.#waiting.push(waiter);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  #wake(): void {
    for (let [next] = this.#waiting; next && this.#fits(next.bytes); [next] = this.#waiting) {
      this.#waiting.shift();
      this.#enter(next.bytes);
      next.go();
    }
  }

  #learn(trip: Trip, startMs: number): void {
    const now = this.nowMs();
    if (trip.end === "lost") return this.#cut(startMs, now);
    if (trip.end === "other") return;
    const tookMs = now - startMs;
    this.#tripMs = this.#tripMs === 0 ? tookMs : 0.8 * this.#tripMs + 0.2 * tookMs;
    this.#window.bytes += trip.bytes + MESSAGE_BYTES;
    this.#window.trips++;
    if (this.#window.trips >= 2 * this.#limit) this.#endWindow(now);
  }

  /** Half as many. Chunks that were sent before the last cut say nothing new. */
  #cut(startMs: number, now: number): void {
    if (startMs < this.#cutAtMs) return;
    this.#cutAtMs = now;
    this.#limit = Math.max(1, Math.floor(this.#limit / 2));
    this.#rose = false;
    this.#held = WINDOWS_HELD;
    this.#newWindow(now);
  }

  #endWindow(now: number): void {
    const { bytes, startMs, wasFull } = this.#window;
    const rate = bytes / Math.max(now - startMs, 1);
    const wasForNothing = this.#rose && rate < this.#rateBefore * GAIN_MIN;
    this.#rose = false;
    if (wasForNothing) {
      this.#limit = Math.max(1, this.#limit - 1);
      this.#held = WINDOWS_HELD;
    } else if (this.#held > 0) {
      this.#held--;
    } else if (wasFull && this.#limit < this.limitMax) {
      this.#limit++;
      this.#rose = true;
      this.#rateBefore = rate;
    }
    this.#newWindow(now);
  }

  #newWindow(now: number): void {
    this.#window = { startMs: now, bytes: 0, trips: 0, wasFull: this.#waiting.length > 0 && this.#isFull };
  }
}
