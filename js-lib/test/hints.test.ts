/** Stores that fail, or never answer, stop nothing. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { CallError, MemoryResumeStore, type ResumeRecord, type Transport } from "@openstorage/client";

import { Hints, ResumeHints } from "../src/hints.js";
import { platform } from "../src/platform/node.js";
import { OpenStorageOn } from "../src/storage.js";
import { pattern } from "./support.js";

const INDEX = "ryjl3-tyaaa-aaaaa-aaaba-cai";
const never = () => new Promise<never>(() => {});

test("a store that fails at once, later or never answers nothing, and is not asked again once it was silent", async () => {
  const hints = new Hints(20);
  assert.equal(await hints.ask(async () => 1, 2), 1);
  assert.equal(await hints.ask(() => Promise.reject(new Error("quota")), 2), 2);
  assert.equal(await hints.ask(() => {
    throw new DOMException("the page may not", "SecurityError");
  }, 2), 2);
  assert.equal(await hints.ask(never, 2), 2);
  assert.equal(await hints.ask(async () => assert.fail("asked again"), 2), 2);
});

test("records of uploads are kept as far as a store keeps them", async () => {
  const record = { blobId: "a" } as unknown as ResumeRecord;
  const good = new ResumeHints(new MemoryResumeStore());
  await good.put("key", record);
  assert.deepEqual([await good.get("key"), await good.all()], [record, [record]]);
  await good.delete("key");
  assert.deepEqual(await good.all(), []);
  const bad = new ResumeHints({ get: never, put: never, delete: () => Promise.reject(new Error("read only")), all: never }, 20);
  await bad.delete("key");
  await bad.put("key", record);
  assert.deepEqual([await bad.get("key"), await bad.all()], [undefined, []]);
});

test("a platform that can make no store, as without a home folder, is one that keeps nothing", async () => {
  const homeless = () => {
    throw new Error("uv_os_homedir returned ENOENT");
  };
  const transport: Transport = {
    principal: async () => (await import("@icp-sdk/core/principal")).Principal.anonymous(),
    query: () => Promise.reject(new CallError("final", "nobody there")),
    update: () => Promise.reject(new CallError("final", "nobody there")),
  };
  const storage = new OpenStorageOn({ ...platform, resumeStore: homeless, cacheStore: homeless }, { transport, indexCanisterId: INDEX });
  assert.deepEqual(await storage.unfinishedUploads(), []);
  assert.equal(await storage.caches(1), false);
  await assert.rejects(storage.upload(pattern(10), { accessorIds: [INDEX] }).done, { code: "CallFailed" });
  await storage.clearCache();
});
