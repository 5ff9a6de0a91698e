/** What a client remembers of unfinished uploads, so that they go on after a reload or a crash. */

import type { BlobId } from "./blob.js";

/** One unfinished upload. The bytes are not in it: the user picks the file again. */
export interface ResumeRecord {
  /** The user as whom it was begun. */
  readonly principal: string;
  /** The index it was begun at. */
  readonly index: string;
  readonly blobId: BlobId;
  /** Where its chunks are: an upload goes on where it began. */
  readonly bucket: string;
  /** Bytes. */
  readonly size: number;
  readonly mimeType: string;
  readonly name?: string;
  readonly accessorIds: readonly string[];
  /** Milliseconds since 1970. */
  readonly startedMs: number;
}

/** Keeps {@link ResumeRecord}s by {@link resumeKey}. One that is lost costs a repetition, nothing else. */
export interface ResumeStore {
  get(key: string): Promise<ResumeRecord | undefined>;
  put(key: string, record: ResumeRecord): Promise<void>;
  delete(key: string): Promise<void>;
  all(): Promise<ResumeRecord[]>;
}

export function resumeKey(record: Pick<ResumeRecord, "principal" | "index" | "blobId">): string {
  return `${record.principal}.${record.index}.${record.blobId}`;
}

/** A bucket drops an open upload in which nothing arrived for a day. */
export const RESUMABLE_MS = 24 * 3_600_000;

/** Forgets with the process. */
export class MemoryResumeStore implements ResumeStore {
  readonly #records = new Map<string, ResumeRecord>();

  async get(key: string): Promise<ResumeRecord | undefined> {
    return this.#records.get(key);
  }

  async put(key: string, record: ResumeRecord): Promise<void> {
    this.#records.set(key, record);
  }

  async delete(key: string): Promise<void> {
    this.#records.delete(key);
  }

  async all(): Promise<ResumeRecord[]> {
    return [...this.#records.values()];
  }
}
