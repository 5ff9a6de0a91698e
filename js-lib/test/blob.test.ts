import assert from "node:assert/strict";
import { test } from "node:test";

import { blobIdFromBytes, blobIdToBytes, isBlobId, parseBlobId } from "@openstorage/client";

import { failure, golden, pattern, random } from "./support.js";

test("a canonical text is a blob id as it stands", () => {
  for (const text of golden.blob_ids.valid) {
    assert.equal(parseBlobId(text), text);
    assert.equal(blobIdFromBytes(blobIdToBytes(parseBlobId(text))), text);
  }
});

test("any other text is refused", () => {
  for (const text of golden.blob_ids.invalid) {
    assert.equal(isBlobId(text), false, JSON.stringify(text));
    const refusal = failure("InvalidBlobId", { expected: "64 lower-case hex characters" });
    assert.throws(() => parseBlobId(text), refusal);
  }
});

test("32 bytes survive the text", () => {
  const below = random(1);
  for (let round = 0; round < 100; round++) {
    const bytes = new Uint8Array(32).map(() => below(256));
    assert.deepEqual(blobIdToBytes(blobIdFromBytes(bytes)), bytes);
  }
});

test("another number of bytes is refused", () => {
  for (const length of [0, 31, 33]) {
    const refusal = failure("InvalidBlobId", { expected: "32 bytes" });
    assert.throws(() => blobIdFromBytes(pattern(length)), refusal);
  }
});
