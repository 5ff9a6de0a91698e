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

/** Five times what is typical (32 MiB resident: the collector takes its time), and far from 256. */
const GROWTH_MAX = 160 * MIB;

test("a stream of 256 MiB is hashed in a fraction of that", async (t) => {
  const before = process.memoryUsage();
  const growth = { rss: 0, arrayBuffers: 0 };
  const id = await hashSource(sourceOfPieces(SIZE, generate), {
    onProgress() {
      const now = process.memoryUsage();
      growth.rss = Math.max(growth.rss, now.rss - before.rss);
      growth.arrayBuffers = Math.max(growth.arrayBuffers, now.arrayBuffers - before.arrayBuffers);
    },
  });
  t.diagnostic(`growth in bytes: ${JSON.stringify(growth)}`);
  assert.ok(growth.arrayBuffers < GROWTH_MAX, `array buffers grew by ${growth.arrayBuffers} bytes`);
  assert.ok(growth.rss < GROWTH_MAX, `resident memory grew by ${growth.rss} bytes`);

  const reference = createHash("sha256");
  for (const piece of generate()) reference.update(piece);
  assert.equal(id, reference.digest("hex"));
});
