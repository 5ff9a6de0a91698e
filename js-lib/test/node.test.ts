import assert from "node:assert/strict";
import { mkdtemp, readdir, rename, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { hashSource } from "@openstorage/client";
import { fileSource } from "@openstorage/client/node";

import { readPieces } from "../src/source.js";
import { failure, golden, pattern, sha256 } from "./support.js";

const dir = await mkdtemp(join(tmpdir(), "openstorage-client-"));
after(() => rm(dir, { recursive: true }));

async function file(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, bytes);
  return path;
}

test("a file has the golden hash of its bytes, again and again", async () => {
  for (const { size, sha256: expected } of golden.hashes) {
    const source = await fileSource(await file("golden", pattern(size)));
    assert.equal(source.size, size);
    assert.equal(await hashSource(source), expected);
    assert.equal(await hashSource(source), expected);
  }
});

test("a file gives any slice", async () => {
  const bytes = pattern(3_000_001);
  const source = await fileSource(await file("slices", bytes));
  for (const [start, end] of [[0, 0], [0, 3_000_001], [2_000_000, 3_000_001], [7, 8]] as const) {
    assert.ok(Buffer.from(await source.slice(start, end)).equals(bytes.subarray(start, end)));
  }
  const refusal = failure("InvalidRange", { start: 0, end: 3_000_002, max: 3_000_001 });
  await assert.rejects(source.slice(0, 3_000_002), refusal);
});

test("a path without a file is named, with the system's error", async () => {
  const path = join(dir, "nothing");
  await assert.rejects(fileSource(path), (error: Error) => {
    assert.equal((error.cause as NodeJS.ErrnoException).code, "ENOENT");
    return failure("SourceUnreadable", { name: path })(error);
  });
});

test("a directory is no file", async () => {
  await assert.rejects(fileSource(dir), failure("SourceUnreadable", { name: dir }));
});

test("a file that is gone is named", async () => {
  const path = await file("gone", pattern(10));
  const source = await fileSource(path);
  await rm(path);
  await assert.rejects(hashSource(source), failure("SourceUnreadable", { name: path }));
  await assert.rejects(source.slice(0, 1), failure("SourceUnreadable", { name: path }));
});

test("a file that has changed since is not read", async () => {
  const path = await file("changed", pattern(10));
  const changes = [
    () => truncate(path, 9),
    () => writeFile(path, pattern(11)),
    () => utimes(path, 1, 1), // same size, another time
    async () => rename(await file("other", pattern(11)), path),
  ];
  for (const change of changes) {
    const source = await fileSource(path);
    await change();
    await assert.rejects(hashSource(source), failure("SourceChanged", { name: path }));
    await assert.rejects(source.slice(0, 1), failure("SourceChanged", { name: path }));
  }
});

test("a file that changes while it is read has no hash", async () => {
  for (const change of [(path: string) => truncate(path, 1_500_000), (path: string) => utimes(path, 1, 1)]) {
    const path = await file("moving", pattern(3_000_000));
    const source = await fileSource(path);
    const reading = async () => {
      let first = true;
      for await (const _ of readPieces(source)) {
        if (first) await change(path);
        first = false;
      }
    };
    await assert.rejects(reading(), failure("SourceChanged", { name: path }));
  }
});

test("every file is closed, however reading ended", async () => {
  const openFiles = async () => (await readdir("/dev/fd")).length;
  const source = await fileSource(await file("closed", pattern(3_000_000)));
  const before = await openFiles();
  for (let round = 0; round < 20; round++) {
    for await (const _ of readPieces(source)) break;
    await source.stream().cancel();
    await source.slice(0, 10);
    const controller = new AbortController();
    const hashing = hashSource(source, { signal: controller.signal });
    controller.abort();
    await assert.rejects(hashing, { name: "AbortError" });
  }
  assert.equal(await hashSource(source), sha256(pattern(3_000_000)));
  assert.equal(await openFiles(), before);
});
