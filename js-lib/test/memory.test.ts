import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { hashSource } from "@openstorage/client";

import { sourceOfPieces } from "./support.js";

const MIB = 1 << 20;
const SIZE = 256 * MIB;
const PIECE = 64 * 1024;

/** 256 MiB that are never there at once: each piece is new, as a file's would be. */
function* generate() {
  for (let i = 0; i < SIZE / PIECE; i++) yield new Uint8Array(PIECE).fill(i % 251);
}

test("a stream of 256 MiB is hashed in a fraction of that", async (t) => {
  const reference = createHash("sha256");
  for (const piece of generate()) reference.update(piece);

  const before = process.memoryUsage();
  let rss = 0;
  let buffers = 0;
  const id = await hashSource(sourceOfPieces(SIZE, generate), {
    onProgress() {
      const now = process.memoryUsage();
      rss = Math.max(rss, now.rss - before.rss);
      buffers = Math.max(buffers, now.arrayBuffers - before.arrayBuffers);
    },
  });
  t.diagnostic(`growth: resident ${rss / MIB} MiB, array buffers ${buffers / MIB} MiB`);
  assert.equal(id, reference.digest("hex"));
});
