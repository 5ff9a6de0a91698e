import assert from "node:assert/strict";
import { test } from "node:test";

import {
  BLOB_BYTES_MAX,
  CHUNK_BYTES,
  checkSize,
  chunkAt,
  chunkCount,
  planChunks,
  TOKEN_CHARS_MAX,
} from "@openstorage/client";

import { failure, golden, random } from "./support.js";

test("limits are the golden ones", () => {
  assert.deepEqual(golden.limits, {
    chunk_bytes: CHUNK_BYTES,
    blob_bytes_max: BLOB_BYTES_MAX,
    token_chars_max: TOKEN_CHARS_MAX,
  });
});

test("counts and last chunks are the golden ones", () => {
  for (const { size, count, last_chunk_bytes } of golden.chunks) {
    assert.equal(chunkCount(size), count, `${size} bytes`);
    const last = chunkAt(size, count - 1);
    assert.deepEqual(last, { index: count - 1, start: size - last_chunk_bytes, end: size });
  }
});

test("the plan covers every byte once, in order", () => {
  const below = random(2);
  const sizes = Array.from({ length: 50 }, () => below(50 * CHUNK_BYTES));
  for (const size of [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, ...sizes]) {
    let at = 0;
    let count = 0;
    for (const chunk of planChunks(size)) {
      assert.deepEqual(chunk, chunkAt(size, count));
      assert.equal(chunk.start, at);
      at = chunk.end;
      count++;
    }
    assert.equal(at, size);
    assert.equal(count, chunkCount(size));
  }
});

test("a plan can be walked again", () => {
  const plan = planChunks(3 * CHUNK_BYTES);
  assert.deepEqual([...plan], [...plan]);
});

test("only what is missing is planned, each chunk once, whatever the ranges' order", () => {
  const below = random(3);
  for (let round = 0; round < 200; round++) {
    const count = 1 + below(40);
    const missing = Array.from({ length: below(6) }, () => {
      const start = below(count + 1);
      return { start, end: start + below(count - start + 1) };
    });
    const expected = new Set(
      missing.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i)),
    );
    const planned = [...planChunks(count * CHUNK_BYTES, missing)].map(({ index }) => index);
    assert.deepEqual(planned, [...expected].sort((a, b) => a - b), JSON.stringify(missing));
  }
});

test("nothing is planned when nothing is missing", () => {
  assert.deepEqual([...planChunks(CHUNK_BYTES, [])], []);
});

test("ranges outside the blob are refused before the first chunk", () => {
  for (const [start, end] of [[0, 3], [-1, 1], [2, 1], [0.5, 1], [0, Number.NaN]] as const) {
    const plan = () => planChunks(2 * CHUNK_BYTES, [{ start: 0, end: 1 }, { start, end }]);
    assert.throws(plan, failure("InvalidRange", { start, end, max: 2 }));
  }
});

test("a chunk that is not there is refused", () => {
  for (const index of [-1, 2, 0.5, Number.NaN, 2 ** 32]) {
    assert.throws(
      () => chunkAt(CHUNK_BYTES + 1, index),
      failure("InvalidChunkIndex", { index, count: 2 }),
    );
  }
});

test("what is no size is refused", () => {
  for (const size of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const call of [checkSize, chunkCount, planChunks]) {
      assert.throws(() => call(size), failure("InvalidSize", { size }));
    }
  }
});

test("a size above the limit is refused with the limit", () => {
  for (const size of [BLOB_BYTES_MAX + 1, 2 ** 64]) {
    for (const call of [checkSize, chunkCount, planChunks]) {
      assert.throws(() => call(size), failure("BlobTooLarge", { size, max: BLOB_BYTES_MAX }));
    }
  }
  assert.equal(checkSize(BLOB_BYTES_MAX), BLOB_BYTES_MAX);
});
