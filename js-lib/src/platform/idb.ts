/** IndexedDB: unfinished uploads, cached blobs and their keys, for a browser. */

import { type CacheEntry, type CacheStore, newCacheKey } from "../cache.js";
import type { ResumeRecord, ResumeStore } from "../resume.js";

const DATABASE = "openstorage";
const VERSION = 1;
const UPLOADS = "uploads";
const BYTES = "cache-bytes";
/** Sizes and times apart from the bytes: they are listed without reading those. */
const ENTRIES = "cache-entries";
const KEYS = "cache-keys";
const STORES = [UPLOADS, BYTES, ENTRIES, KEYS];

/** A database that has not opened by then is done without; browsers have been seen to leave it open for ever. */
const OPEN_MS = 5_000;

let opening: Promise<IDBDatabase> | undefined;

function database(): Promise<IDBDatabase> {
  if (opening) return opening;
  opening = new Promise<IDBDatabase>((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    const timer = setTimeout(() => reject(new DOMException("the database does not open", "TimeoutError")), OPEN_MS);
    const fail = (error: unknown) => {
      clearTimeout(timer);
      reject(error);
    };
    request.onupgradeneeded = () => {
      for (const name of STORES) request.result.createObjectStore(name);
    };
    request.onsuccess = () => {
      clearTimeout(timer);
      const db = request.result;
      // Another page upgrades or deletes it: let it, and open anew.
      db.onversionchange = () => {
        db.close();
        opening = undefined;
      };
      db.onclose = () => {
        opening = undefined;
      };
      opening = Promise.resolve(db);
      resolve(db);
    };
    request.onerror = () => fail(request.error);
    request.onblocked = () => fail(new DOMException("another page blocks the database", "AbortError"));
  });
  // One that does not open is not waited for again while the page lives, unless it opens after all.
  opening.catch((error: DOMException) => {
    if (error.name !== "TimeoutError") opening = undefined;
  });
  return opening;
}

/** What the last request of `work` answers, once the transaction is done. */
async function transact<T>(
  names: string[],
  mode: IDBTransactionMode,
  work: (store: (name: string) => IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  const db = await database();
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(names, mode);
    const request = work((name) => transaction.objectStore(name));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
    transaction.onerror = () => reject(transaction.error);
  });
}

/** Records are hints: where the browser keeps nothing (private windows), uploads just begin anew. */
export class IdbResumeStore implements ResumeStore {
  async get(key: string): Promise<ResumeRecord | undefined> {
    return transact([UPLOADS], "readonly", (store) => store(UPLOADS).get(key)).catch(() => undefined);
  }

  async put(key: string, record: ResumeRecord): Promise<void> {
    await transact([UPLOADS], "readwrite", (store) => store(UPLOADS).put(record, key)).catch(() => {});
  }

  async delete(key: string): Promise<void> {
    await transact([UPLOADS], "readwrite", (store) => store(UPLOADS).delete(key)).catch(() => {});
  }

  async all(): Promise<ResumeRecord[]> {
    return transact([UPLOADS], "readonly", (store) => store(UPLOADS).getAll()).catch(() => []);
  }
}

interface Entry extends CacheEntry {
  readonly usedMs: number;
}

export class IdbCacheStore implements CacheStore {
  async get(name: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return transact([BYTES, ENTRIES], "readwrite", (store) => {
      const reading = store(BYTES).get(name);
      reading.onsuccess = () => {
        if (reading.result) store(ENTRIES).put(entry(name, reading.result.byteLength), name);
      };
      return reading;
    });
  }

  async put(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await transact([BYTES, ENTRIES], "readwrite", (store) => {
      store(BYTES).put(bytes, name);
      return store(ENTRIES).put(entry(name, bytes.byteLength), name);
    });
  }

  async delete(name: string): Promise<void> {
    await transact([BYTES, ENTRIES], "readwrite", (store) => {
      store(BYTES).delete(name);
      return store(ENTRIES).delete(name);
    });
  }

  async entries(): Promise<readonly CacheEntry[]> {
    const all: Entry[] = await transact([ENTRIES], "readonly", (store) => store(ENTRIES).getAll());
    return all.sort((a, b) => a.usedMs - b.usedMs);
  }

  async key(name: string): Promise<CryptoKey> {
    const known = await transact([KEYS], "readonly", (store) => store(KEYS).get(name));
    if (known) return known;
    const fresh = await newCacheKey();
    // Two pages may come here at once: the first one's key stays.
    return transact([KEYS], "readwrite", (store) => {
      const looking = store(KEYS).get(name);
      looking.onsuccess = () => {
        if (!looking.result) store(KEYS).put(fresh, name);
      };
      return looking;
    }).then((earlier) => earlier ?? fresh);
  }

  async clear(): Promise<void> {
    // Where the browser keeps nothing, nothing is to be forgotten.
    if (!(await database().catch(() => undefined))) return;
    await transact([BYTES, ENTRIES, KEYS], "readwrite", (store) => {
      store(BYTES).clear();
      store(ENTRIES).clear();
      return store(KEYS).clear();
    });
  }
}

function entry(name: string, bytes: number): Entry {
  return { name, bytes, usedMs: Date.now() };
}
