/** When to try again, and when to give up. */

import { clock } from "./clock.js";
import { OpenStorageError } from "./errors.js";

const FIRST_WAIT_MS = 100;
const WAIT_MAX_MS = 5_000;
/** A canister that asks for more is asked again after this. */
const ASKED_WAIT_MAX_MS = 30_000;
/** Timers fire up to so much early: they count whole milliseconds, and round down. */
const TIMER_EARLY_MS = 2;

/** How long something is tried again without any progress, unless the caller says otherwise. */
export const PATIENCE_MS = 120_000;

/**
 * Patience with one piece of work: begins with the first thing that goes wrong. Progress renews it, and so does a
 * sleep of the machine: what went wrong before says nothing of the network that it wakes up in.
 */
export class Patience {
  readonly #limitMs: number;
  #deadlineMs: number | undefined;
  #waitMs = FIRST_WAIT_MS;
  #sleeps = 0;

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
    const beganMs = clock.nowMs();
    try {
      return await waiting();
    } finally {
      if (this.#deadlineMs !== undefined) this.#deadlineMs += clock.nowMs() - beganMs;
    }
  }

  /**
   * Waits, longer each time, and at least `askedMs` where a canister has asked for that. A network that comes back
   * ends the wait.
   *
   * @param last what went wrong, in words or as an error
   * @throws `GaveUp` with `last` once the time is up; the signal's reason
   */
  async pause(last: string | Error, signal: AbortSignal | undefined, askedMs = 0): Promise<void> {
    const stop = clock.beats(() => {});
    try {
      const sleeps = clock.sleeps();
      if (sleeps !== this.#sleeps) this.renew();
      this.#sleeps = sleeps;
      const nowMs = clock.nowMs();
      this.#deadlineMs ??= nowMs + this.#limitMs;
      const leftMs = this.#deadlineMs - nowMs;
      if (leftMs < TIMER_EARLY_MS) throw gaveUp(this.#limitMs, last);
      const wantedMs = Math.max(this.#waitMs, Math.min(askedMs, ASKED_WAIT_MAX_MS));
      this.#waitMs = Math.min(2 * this.#waitMs, WAIT_MAX_MS);
      // Up to a quarter more, so that calls that failed together are not repeated together. Not beyond
      // the deadline: the last try is made there.
      const waitMs = Math.min(wantedMs * (1 + Math.random() / 4), leftMs);
      await untilOnline((online) => sleep(waitMs, signal, online));
    } finally {
      stop();
    }
  }
}

/** Gives `waiting` a signal for the moment in which a browser finds a network again. */
async function untilOnline(waiting: (online: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const heard = () => controller.abort();
  // Node has no such events.
  globalThis.addEventListener?.("online", heard);
  try {
    await waiting(controller.signal);
  } finally {
    globalThis.removeEventListener?.("online", heard);
  }
}

function gaveUp(limitMs: number, why: string | Error): OpenStorageError<"GaveUp"> {
  const seconds = Math.round(limitMs / 1000);
  const last = typeof why === "string" ? why : why.message;
  const message =
    `gave up after ${seconds} s without progress (last: ${last}). ` +
    "Check the connection, or wait until that has passed, and start again: what was sent is kept for a day";
  return new OpenStorageError("GaveUp", message, { seconds, last }, typeof why === "string" ? {} : { cause: why });
}

/**
 * @param early ends the wait without an error
 * @throws the signal's reason
 */
export function sleep(ms: number, signal?: AbortSignal, early?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const end = (settle: () => void) => () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      early?.removeEventListener("abort", wake);
      settle();
    };
    const wake = end(resolve);
    const abort = end(() => reject(signal?.reason));
    const timer = setTimeout(wake, ms);
    signal?.addEventListener("abort", abort, { once: true });
    early?.addEventListener("abort", wake, { once: true });
  });
}
