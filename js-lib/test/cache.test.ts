import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import "fake-indexeddb/auto";
import { BlobCache, type CacheStore, MemoryCacheStore, parseBlobId } from "@openstorage/client";
import { FolderCacheStore } from "@openstorage/client/node";

import { IdbCacheStore } from "../src/platform/idb.js";
import { pattern, sha256 } from "./support.js";

const dir = await mkdtemp(join(tmpdir(), "openstorage-cache-"));
after(() => rm(dir, { recursive: true }));

const STORES: [string, () => CacheStore][] = [
  ["memory", () => new MemoryCacheStore()],
  ["folder", () => new FolderCacheStore(join(dir, String(Math.random())))],
  ["IndexedDB", () => new IdbCacheStore()],
];

const blob = (n: number) => {
  const bytes = pattern(n);
  return { bytes, id: parseBlobId(sha256(bytes)) };
};

for (const [what, make] of STORES) {
  test(`${what}: what was put is there, for its principal only`, async () => {
    const store = make();
    const { bytes, id } = blob(10_000);
    const cache = new BlobCache(store, "alice");
    assert.equal(await cache.get(id), undefined);
    await cache.put(id, bytes);
    assert.deepEqual(await cache.get(id), bytes);
    assert.deepEqual(await new BlobCache(store, "alice").get(id), bytes);
    assert.equal(await new BlobCache(store, "bob").get(id), undefined);
    await cache.delete(id);
    assert.equal(await cache.get(id), undefined);
    await store.clear();
  });

  test(`${what}: entries are encrypted under a key that cannot be exported`, async () => {
    const store = make();
    const { bytes, id } = blob(10_000);
    await new BlobCache(store, "alice").put(id, bytes);
    const [entry] = await store.entries();
    const stored = await store.get(entry!.name);
    assert.ok(Buffer.from(stored!).indexOf(Buffer.from(bytes.subarray(0, 32))) < 0);
    const key = await store.key("alice");
    assert.equal(key.extractable, false);
    await assert.rejects(crypto.subtle.exportKey("raw", key));
    await store.clear();
    assert.equal((await store.entries()).length, 0);
  });

  test(`${what}: a damaged or exchanged entry is a miss, and goes`, async () => {
    const store = make();
    const cache = new BlobCache(store, "alice");
    const [a, b] = [blob(1_000), blob(2_000)];
    await cache.put(a.id, a.bytes);
    await cache.put(b.id, b.bytes);
    const sealed = (await store.get(`alice.${a.id}`))!;
    await store.put(`alice.${b.id}`, sealed);
    assert.equal(await cache.get(b.id), undefined);
    const damaged = sealed.slice();
    damaged[20]! ^= 1;
    await store.put(`alice.${a.id}`, damaged);
    assert.equal(await cache.get(a.id), undefined);
    assert.equal((await store.entries()).length, 0);
    await store.clear();
  });

  test(`${what}: what was unused for longest makes room`, async () => {
    const store = make();
    const cache = new BlobCache(store, "alice", 40_000);
    const blobs = [9_000, 9_001, 9_002, 9_003].map(blob);
    const tick = () => new Promise((resolve) => setTimeout(resolve, 20));
    for (const { id, bytes } of blobs) {
      await cache.put(id, bytes);
      await tick();
    }
    assert.ok(await cache.get(blobs[0]!.id));
    await tick();
    const { id, bytes } = blob(9_004);
    await cache.put(id, bytes);
    const there = await Promise.all(blobs.map(async (one) => (await cache.get(one.id)) !== undefined));
    assert.deepEqual(there, [true, false, true, true]);
    assert.ok(await cache.get(id));
    assert.equal(cache.takes(10_001), false);
    await store.clear();
  });
}

test("who asks for a blob that is on its way into the cache gets it, or goes on without it after ten seconds", async (t) => {
  const cache = new BlobCache(new MemoryCacheStore(), "alice");
  const [kept, stuck] = [blob(1_000), blob(2_000)];
  let hashed = () => {};
  const keeping = cache.whileComing(kept.id, async () => {
    await new Promise<void>((resolve) => (hashed = resolve));
    await cache.put(kept.id, kept.bytes);
  });
  const getting = cache.get(kept.id);
  hashed();
  assert.deepEqual(await getting, kept.bytes);
  await keeping;

  const failing = cache.whileComing(stuck.id, () => Promise.reject(new Error("the file is gone")));
  assert.equal(await cache.get(stuck.id), undefined);
  await assert.rejects(failing, /gone/);

  t.mock.timers.enable({ apis: ["setTimeout"] });
  void cache.whileComing(stuck.id, () => new Promise(() => {}));
  const waiting = cache.get(stuck.id);
  t.mock.timers.tick(10_000);
  assert.equal(await waiting, undefined);
});

test("a store that fails is no cache, and no failure", async () => {
  const broken = new Proxy({} as CacheStore, { get: () => async () => Promise.reject(new Error("quota")) });
  const cache = new BlobCache(broken, "alice");
  const { bytes, id } = blob(10);
  await cache.put(id, bytes);
  assert.equal(await cache.get(id), undefined);
});

test("the folder's files are their owner's only, and another process has the same key", async () => {
  const path = join(dir, "modes");
  const { bytes, id } = blob(5_000);
  await new BlobCache(new FolderCacheStore(path), "alice").put(id, bytes);
  for (const name of ["keys/alice", `blobs/alice.${id}`]) {
    assert.equal((await stat(join(path, name))).mode & 0o077, 0, name);
  }
  assert.equal((await readFile(join(path, "keys/alice"))).length, 32);
  assert.deepEqual(await new BlobCache(new FolderCacheStore(path), "alice").get(id), bytes);
  await writeFile(join(path, "keys/alice"), new Uint8Array(32));
  assert.equal(await new BlobCache(new FolderCacheStore(path), "alice").get(id), undefined);
  assert.deepEqual(await readdir(join(path, "blobs")), []);
});

test("a database that never opens is done without, also when all is to be forgotten", async (t) => {
  const { IdbCacheStore: Store, IdbResumeStore } = (await import(`${new URL("../src/platform/idb.js", import.meta.url).href}?silent`)) as typeof import("../src/platform/idb.js");
  const requests: IDBOpenDBRequest[] = [];
  t.mock.method(indexedDB, "open", () => {
    const request = {} as IDBOpenDBRequest;
    requests.push(request);
    return request;
  });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const cache = new BlobCache(new Store(), "alice");
  const { bytes, id } = blob(10);
  const getting = cache.get(id);
  t.mock.timers.tick(5_000);
  assert.equal(await getting, undefined);
  // Nobody waits a second time.
  await cache.put(id, bytes);
  await new Store().clear();
  assert.deepEqual(await new IdbResumeStore().all(), []);
  assert.equal(requests.length, 1);
});

test("a database that is deleted while it is open is made anew", async () => {
  const store = new IdbCacheStore();
  const cache = new BlobCache(store, "alice");
  const { bytes, id } = blob(10);
  await cache.put(id, bytes);
  await new Promise((resolve, reject) => {
    const deleting = indexedDB.deleteDatabase("openstorage");
    deleting.onsuccess = resolve;
    deleting.onerror = reject;
  });
  assert.equal(await cache.get(id), undefined);
  await cache.put(id, bytes);
  assert.deepEqual(await cache.get(id), bytes);
  await store.clear();
});
