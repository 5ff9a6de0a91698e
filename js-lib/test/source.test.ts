import assert from "node:assert/strict";
import { test } from "node:test";
import { runInNewContext } from "node:vm";

import {
  BLOB_BYTES_MAX,
  hashSource,
  type Source,
  sourceOf,
  sourceOfStream,
} from "@openstorage/client";

import { readPieces } from "../src/source.js";
import { failure, pattern, random, sha256, sourceOfPieces } from "./support.js";

const bytes = pattern(3_000_001);
const SOURCES: [string, () => Source][] = [
  ["bytes", () => sourceOf(bytes)],
  ["a Blob", () => sourceOf(new Blob([bytes]))],
  ["a File", () => sourceOf(new File([bytes], "name"))],
];

for (const [what, make] of SOURCES) {
  test(`${what}: streams all bytes, again and again`, async () => {
    const source = make();
    assert.equal(source.size, bytes.length);
    for (let round = 0; round < 2; round++) {
      const pieces: Uint8Array[] = [];
      for await (const piece of readPieces(source)) pieces.push(piece.slice());
      assert.ok(Buffer.concat(pieces).equals(bytes));
    }
  });

  test(`${what}: gives any slice`, async () => {
    const source = make();
    const below = random(5);
    const ends = [[0, 0], [0, bytes.length], [bytes.length, bytes.length]];
    for (let round = 0; round < 20; round++) {
      const start = below(bytes.length);
      ends.push([start, start + below(bytes.length - start + 1)]);
    }
    for (const [start, end] of ends as [number, number][]) {
      const slice = await source.slice(start, end);
      assert.ok(Buffer.from(slice).equals(bytes.subarray(start, end)), `${start} to ${end}`);
    }
  });

  test(`${what}: refuses a slice outside`, async () => {
    const max = bytes.length;
    for (const [start, end] of [[0, max + 1], [-1, 1], [2, 1], [0.5, 1]] as const) {
      await assert.rejects(make().slice(start, end), failure("InvalidRange", { start, end, max }));
    }
  });
}

test("a file's name is in its errors' texts", () => {
  assert.equal(sourceOf(new File([], "cat.png")).name, "cat.png");
});

test("bytes of another frame are bytes", async () => {
  const foreign = runInNewContext("new Uint8Array([1, 2, 3])") as Uint8Array<ArrayBuffer>;
  assert.ok(!(foreign instanceof Uint8Array));
  const expected = sha256(Uint8Array.of(1, 2, 3));
  assert.equal(await hashSource(sourceOf(foreign)), expected);
  assert.equal(await hashSource(sourceOfPieces(3, () => [foreign])), expected);
});

test("a stream can be read once", async () => {
  const source = sourceOfStream(new Blob([bytes]).stream(), bytes.length);
  assert.equal(await hashSource(source), sha256(bytes));
  await assert.rejects(hashSource(source), failure("SourceConsumed", { name: "a stream" }));
});

test("a stream that someone else reads is not read", async () => {
  const stream = new Blob([bytes]).stream();
  stream.getReader();
  const source = sourceOfStream(stream, bytes.length);
  await assert.rejects(hashSource(source), failure("SourceConsumed", { name: "a stream" }));
});

test("a stream's announced size must be one", () => {
  const stream = new Blob([]).stream();
  assert.throws(() => sourceOfStream(stream, -1), failure("InvalidSize", { size: -1 }));
  const size = BLOB_BYTES_MAX + 1;
  const refusal = failure("BlobTooLarge", { size, max: BLOB_BYTES_MAX });
  assert.throws(() => sourceOfStream(stream, size), refusal);
});

test("leaving the loop early cancels the stream", async () => {
  const source = sourceOfPieces(2, () => [pattern(1), pattern(1)]);
  for await (const piece of readPieces(source)) {
    assert.equal(piece.length, 1);
    break;
  }
  assert.equal(source.cancelled.length, 1);
});
