/**
 * Blobs that were downloaded before, by their hash: what is there under a blob's id needs no transfer,
 * and a changed blob has another id.
 *
 * Entries are encrypted with AES-GCM under a key of the principal that they were read as, so that the
 * next user of the machine, and whoever copies its disk without the key, reads nothing.
 */

import type { BlobId } from "./blob.js";
import { Hints, SILENT_MS } from "./hints.js";

/** Where encrypted entries and keys are kept. What is lost is downloaded again. */
export interface CacheStore {
  /** Bytes of an entry, and that it was used now. */
  get(name: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  put(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  delete(name: string): Promise<void>;
  /** What is there, the entry unused for longest first. */
  entries(): Promise<readonly CacheEntry[]>;
  /** The AES-GCM key under this name, made when there is none yet. It cannot be exported. */
  key(name: string): Promise<CryptoKey>;
  /** Entries and keys, all of them. */
  clear(): Promise<void>;
}

export interface CacheEntry {
  readonly name: string;
  /** In the store. */
  readonly bytes: number;
}

/** Bytes that the cache keeps, unless the app says otherwise. */
export const CACHE_BYTES_MAX = 256_000_000;
/** The part of the cache that one blob may take: one video is not to push all pictures out. */
const ENTRY_SHARE = 1 / 4;

const IV_BYTES = 12;
/** How long who wants a blob waits for a copy that is on its way into the cache: as long as for a store that says nothing. */
const COMING_MS = SILENT_MS;

/** One principal's view of a {@link CacheStore}. A store that fails, or never answers, is no cache: nothing here throws. */
export class BlobCache {
  #room: Promise<void> = Promise.resolve();
  /** Copies that are on their way into the cache. */
  readonly #coming = new Map<BlobId, Promise<void>>();
  readonly #hints = new Hints();

  constructor(
    private readonly store: CacheStore,
    /** In its textual form. */
    private readonly principal: string,
    private readonly bytesMax: number = CACHE_BYTES_MAX,
  ) {}

  /** Whether a blob of so many bytes is kept. */
  takes(size: number): boolean {
    return size <= this.bytesMax * ENTRY_SHARE;
  }

  async get(blobId: BlobId): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const coming = this.#coming.get(blobId);
    if (coming) await within(COMING_MS, coming);
    const sealed = await this.#hints.ask(() => this.store.get(this.#name(blobId)), undefined);
    const bytes = sealed && (await this.#hints.ask(() => this.#open(blobId, sealed), undefined));
    // Damaged, or of another key.
    if (sealed && !bytes) await this.delete(blobId);
    return bytes;
  }

  /** While `work` hashes and puts a blob, {@link get} waits for it, for a while. */
  async whileComing(blobId: BlobId, work: () => Promise<void>): Promise<void> {
    const coming = work();
    this.#coming.set(blobId, coming);
    try {
      await coming;
    } finally {
      if (this.#coming.get(blobId) === coming) this.#coming.delete(blobId);
    }
  }

  /** Keeps a blob whose hash has been checked. */
  async put(blobId: BlobId, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (!this.takes(bytes.byteLength)) return;
    // Full, or refused by the browser: it was only to save a transfer.
    await this.#hints.ask(async () => {
      const sealed = await this.#seal(blobId, bytes);
      await this.#makeRoom(sealed.byteLength);
      await this.store.put(this.#name(blobId), sealed);
    }, undefined);
  }

  async delete(blobId: BlobId): Promise<void> {
    await this.#hints.ask(() => this.store.delete(this.#name(blobId)), undefined);
  }

  #name(blobId: BlobId): string {
    return `${this.principal}.${blobId}`;
  }

  /** One at a time, or two would count the same room. */
  #makeRoom(bytes: number): Promise<void> {
    const room = this.#room.then(async () => {
      const entries = await this.store.entries();
      let sum = bytes + entries.reduce((all, entry) => all + entry.bytes, 0);
      for (const entry of entries) {
        if (sum <= this.bytesMax) break;
        await this.store.delete(entry.name);
        sum -= entry.bytes;
      }
    });
    this.#room = room.catch(() => {});
    return room;
  }

  /** A fresh nonce each time, in front; the name is authenticated too, so that no entry stands in for another. */
  async #seal(blobId: BlobId, bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
    const key = await this.store.key(this.principal);
    const sealed = new Uint8Array(await crypto.subtle.encrypt(this.#cipher(blobId, iv), key, bytes));
    const entry = new Uint8Array(IV_BYTES + sealed.byteLength);
    entry.set(iv);
    entry.set(sealed, IV_BYTES);
    return entry;
  }

  async #open(blobId: BlobId, entry: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const iv = entry.subarray(0, IV_BYTES);
    const key = await this.store.key(this.principal);
    const sealed = entry.subarray(IV_BYTES);
    return new Uint8Array(await crypto.subtle.decrypt(this.#cipher(blobId, iv), key, sealed));
  }

  #cipher(blobId: BlobId, iv: Uint8Array<ArrayBuffer>): AesGcmParams {
    const additionalData = new TextEncoder().encode(this.#name(blobId));
    return { name: "AES-GCM", iv, additionalData };
  }
}

/** Resolves once `work` has ended, well or not, and after `ms` at the latest. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work.then(() => {}, () => {}), late]);
  clearTimeout(timer);
}

/** A fresh AES-GCM key that cannot be exported. */
export function newCacheKey(): Promise<CryptoKey> {
  const algorithm = { name: "AES-GCM", length: 256 };
  return crypto.subtle.generateKey(algorithm, false, ["encrypt", "decrypt"]);
}

/** Forgets with the process. */
export class MemoryCacheStore implements CacheStore {
  readonly #entries = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly #keys = new Map<string, Promise<CryptoKey>>();

  async get(name: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const bytes = this.#entries.get(name);
    if (bytes) await this.put(name, bytes);
    return bytes;
  }

  async put(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    // A map keeps the order of insertion.
    this.#entries.delete(name);
    this.#entries.set(name, bytes);
  }

  async delete(name: string): Promise<void> {
    this.#entries.delete(name);
  }

  async entries(): Promise<readonly CacheEntry[]> {
    return Array.from(this.#entries, ([name, { byteLength }]) => ({ name, bytes: byteLength }));
  }

  async key(name: string): Promise<CryptoKey> {
    let key = this.#keys.get(name);
    if (!key) {
      key = newCacheKey();
      this.#keys.set(name, key);
    }
    return key;
  }

  async clear(): Promise<void> {
    this.#entries.clear();
    this.#keys.clear();
  }
}
