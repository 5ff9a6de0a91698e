/** Time while the machine is awake: what a laptop sleeps through is nobody's delay. */

const BEAT_MS = 1_000;
/** A beat that is so late was slept through. */
const LATE_MS = 10_000;
/** Browsers let the timers of a hidden page run once a minute. */
const LATE_HIDDEN_MS = 70_000;

/** Counts milliseconds, but for those in which nothing ran; beats once a second while somebody waits. */
export class Clock {
  #sleptMs = 0;
  #sleeps = 0;
  #beatMs = 0;
  #timer: ReturnType<typeof setInterval> | undefined;
  readonly #heard = new Set<() => void>();

  constructor(
    private readonly systemMs: () => number = () => performance.now(),
    private readonly isHidden: () => boolean = () => globalThis.document?.visibilityState === "hidden",
  ) {}

  /** Milliseconds, from some moment on, without those that were slept. */
  nowMs(): number {
    if (this.#timer) this.#look();
    return this.systemMs() - this.#sleptMs;
  }

  /** How many times the machine has slept while somebody waited. */
  sleeps(): number {
    if (this.#timer) this.#look();
    return this.#sleeps;
  }

  /** Calls `heard` once a second until the function returned is called. */
  beats(heard: () => void): () => void {
    // One for each: the same function may wait twice.
    const own = () => heard();
    if (this.#heard.size === 0) {
      this.#beatMs = this.systemMs();
      this.#timer = setInterval(() => this.#beat(), BEAT_MS);
      // Does not keep a program of Node alive.
      (this.#timer as { unref?(): void }).unref?.();
    }
    this.#heard.add(own);
    return () => {
      if (!this.#heard.delete(own) || this.#heard.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
  }

  #beat(): void {
    this.#look();
    for (const heard of [...this.#heard]) heard();
  }

  #look(): void {
    const system = this.systemMs();
    const gapMs = system - this.#beatMs;
    this.#beatMs = system;
    if (gapMs < BEAT_MS + (this.isHidden() ? LATE_HIDDEN_MS : LATE_MS)) return;
    this.#sleptMs += gapMs - BEAT_MS;
    this.#sleeps++;
  }
}

/** The one that all waiting of this library goes by. */
export const clock = new Clock();
