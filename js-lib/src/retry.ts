/** When to try again, and when to give up. */

import { OpenStorageError } from "./errors.js";

const FIRST_WAIT_MS = 100;
const WAIT_MAX_MS = 5_000;
/** A canister that asks for more is asked again after this. */
const ASKED_WAIT_MAX_MS = 30_000;
/** Timers fire up to so much early: they count whole milliseconds, and round down. */
const TIMER_EARLY_MS = 2;

/** How long something is tried again without any progress, unless the caller says otherwise. */
export const PATIENCE_MS = 120_000;

/** Patience with one piece of work: begins with the first thing that goes wrong. Progress renews it. */
export class Patience {
  readonly #limitMs: number;
  #deadlineMs: number | undefined;
  #waitMs = FIRST_WAIT_MS;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Something went well: whatever goes wrong next is the first. */
  renew(): void {
    this.#deadlineMs = undefined;
    this.#waitMs = FIRST_WAIT_MS;
  }

  /** What `waiting` brings. It is no trying, such as a turn that has to come, and takes no patience. */
  async free<T>(waiting: () => Promise<T>): Promise<T> {
    const beganMs = performance.now();
    try {
      return await waiting();
    } finally {
      if (this.#deadlineMs !== undefined) this.#deadlineMs += performance.now() - beganMs;
    }
  }

  /**
   * Waits, longer each time, and at least `askedMs` where a canister has asked for that.
   *
   * @throws `GaveUp` with `last` once the time is up; the signal's reason
   */
  async pause(last: string, signal: AbortSignal | undefined, askedMs = 0): Promise<void> {
    const nowMs = performance.now();
    this.#deadlineMs ??= nowMs + this.#limitMs;
    const leftMs = this.#deadlineMs - nowMs;
    if (leftMs < TIMER_EARLY_MS) throw gaveUp(this.#limitMs, last);
    const wantedMs = Math.max(this.#waitMs, Math.min(askedMs, ASKED_WAIT_MAX_MS));
    this.#waitMs = Math.min(2 * this.#waitMs, WAIT_MAX_MS);
    // Up to a quarter more, so that calls that failed together are not repeated together. Not beyond
    // the deadline: the last try is made there.
    const waitMs = Math.min(wantedMs * (1 + Math.random() / 4), leftMs);
    await sleep(waitMs, signal);
  }
}

function gaveUp(limitMs: number, last: string): OpenStorageError<"GaveUp"> {
  const seconds = Math.round(limitMs / 1000);
  const message =
    `gave up after ${seconds} s without progress (last: ${last}). ` +
    "Check the connection, or wait until that has passed, and start again: what was sent is kept for a day";
  return new OpenStorageError("GaveUp", message, { seconds, last });
}

/** @throws the signal's reason */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
