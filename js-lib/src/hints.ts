/** What is kept for comfort alone: where a store fails or is silent, the work goes on without it. */

import type { ResumeRecord, ResumeStore } from "./resume.js";

/** A store that has not answered by then is not asked again. Browsers have let an open database wait for ever. */
export const SILENT_MS = 10_000;

/** Questions to one store. */
export class Hints {
  #isSilent = false;

  constructor(private readonly silentMs = SILENT_MS) {}

  /** What the store answers; `otherwise` where it fails, or says nothing. */
  async ask<T>(question: () => Promise<T>, otherwise: T): Promise<T> {
    if (this.#isSilent) return otherwise;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<T>((resolve) => {
      timer = setTimeout(() => {
        this.#isSilent = true;
        resolve(otherwise);
      }, this.silentMs);
    });
    try {
      return await Promise.race([question(), silence]);
    } catch {
      return otherwise;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Records of uploads, as far as a store keeps them: without them an upload begins anew after a reload. */
export class ResumeHints implements ResumeStore {
  readonly #hints: Hints;

  constructor(
    private readonly store: ResumeStore,
    silentMs?: number,
  ) {
    this.#hints = new Hints(silentMs);
  }

  get(key: string): Promise<ResumeRecord | undefined> {
    return this.#hints.ask(() => this.store.get(key), undefined);
  }

  put(key: string, record: ResumeRecord): Promise<void> {
    return this.#hints.ask(() => this.store.put(key, record), undefined);
  }

  delete(key: string): Promise<void> {
    return this.#hints.ask(() => this.store.delete(key), undefined);
  }

  all(): Promise<ResumeRecord[]> {
    return this.#hints.ask(() => this.store.all(), []);
  }
}

/** What a platform makes; `undefined` where it cannot, as without a home folder. */
export function madeOrNot<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}
