/** Unfinished uploads and cached blobs as files in a folder, for Node. */

import { randomBytes, randomUUID } from "node:crypto";
import { chmod, mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { CacheEntry, CacheStore } from "./cache.js";
import type { ResumeRecord, ResumeStore } from "./resume.js";

const RECORD = ".json";
const TEMPORARY = ".tmp";

/** Whole or not at all, also when the process is killed in the middle. */
async function writeWhole(dir: string, name: string, data: string | Uint8Array): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const temporary = join(dir, `${randomUUID()}${TEMPORARY}`);
  try {
    await writeFile(temporary, data, { mode: 0o600 });
    await rename(temporary, join(dir, name));
  } finally {
    await rm(temporary, { force: true });
  }
}

const missing = () => undefined;

/** One JSON file for each unfinished upload. */
export class FolderResumeStore implements ResumeStore {
  constructor(private readonly dir: string) {}

  async get(key: string): Promise<ResumeRecord | undefined> {
    const text = await readFile(join(this.dir, key + RECORD), "utf8").catch(missing);
    return text === undefined ? undefined : parsed(text);
  }

  async put(key: string, record: ResumeRecord): Promise<void> {
    await writeWhole(this.dir, key + RECORD, JSON.stringify(record, undefined, 2));
  }

  async delete(key: string): Promise<void> {
    await rm(join(this.dir, key + RECORD), { force: true });
  }

  async all(): Promise<ResumeRecord[]> {
    const names = (await readdir(this.dir).catch(() => [])).filter((name) => name.endsWith(RECORD));
    const records = await Promise.all(names.map((name) => this.get(name.slice(0, -RECORD.length))));
    return records.filter((record) => record !== undefined);
  }
}

/** A file that somebody has damaged is no record. */
function parsed(text: string): ResumeRecord | undefined {
  try {
    return JSON.parse(text) as ResumeRecord;
  } catch {
    return undefined;
  }
}

/**
 * Encrypted entries in `DIR/blobs`, keys in `DIR/keys`, readable for their owner only. Node keeps no key
 * that cannot be exported: whoever reads `DIR/keys` as this user reads the cache.
 */
export class FolderCacheStore implements CacheStore {
  readonly #blobs: string;
  readonly #keys: string;
  readonly #known = new Map<string, Promise<CryptoKey>>();

  constructor(dir: string) {
    this.#blobs = join(dir, "blobs");
    this.#keys = join(dir, "keys");
  }

  async get(name: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const path = join(this.#blobs, name);
    const bytes = await readFile(path).catch(missing);
    if (!bytes) return undefined;
    const now = new Date();
    await utimes(path, now, now).catch(missing);
    return bytes as Uint8Array<ArrayBuffer>;
  }

  async put(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await writeWhole(this.#blobs, name, bytes);
  }

  async delete(name: string): Promise<void> {
    await rm(join(this.#blobs, name), { force: true });
  }

  async entries(): Promise<readonly CacheEntry[]> {
    const names = await readdir(this.#blobs).catch(() => []);
    const found = await Promise.all(
      names.map(async (name) => {
        const stats = await stat(join(this.#blobs, name)).catch(missing);
        return stats && { name, bytes: stats.size, usedMs: stats.mtimeMs };
      }),
    );
    return found.filter((entry) => entry !== undefined).sort((a, b) => a.usedMs - b.usedMs);
  }

  key(name: string): Promise<CryptoKey> {
    let key = this.#known.get(name);
    if (!key) {
      key = this.#key(name);
      key.catch(() => this.#known.delete(name));
      this.#known.set(name, key);
    }
    return key;
  }

  async #key(name: string): Promise<CryptoKey> {
    const path = join(this.#keys, name);
    await mkdir(this.#keys, { recursive: true, mode: 0o700 });
    await chmod(this.#keys, 0o700);
    // Two processes may come here at once: the first one's key stays.
    await writeFile(path, randomBytes(32), { flag: "wx", mode: 0o600 }).catch(missing);
    const bytes = await readFile(path);
    return crypto.subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]);
  }

  async clear(): Promise<void> {
    this.#known.clear();
    await rm(this.#blobs, { recursive: true, force: true });
    await rm(this.#keys, { recursive: true, force: true });
  }
}
