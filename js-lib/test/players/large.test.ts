/**
 * A file that is larger than what gateways join of a certified answer (1,000 parts): whoever fetches it gets all of
 * it, or an error. It takes minutes, and runs where everything is to be tried.
 */

import assert from "node:assert/strict";
import { createHash, randomFillSync } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, rm, stat, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { CERTIFIED_GET_BYTES_MAX, CHUNK_BYTES } from "@openstorage/client";
import { fileSource } from "@openstorage/client/node";

import { Matrix } from "./matrix.js";
import { Shelf } from "./shelf.js";
import { run } from "./tool.js";

const SIZE = 2_050_000_007;
const LARGE_MS = 900_000;

/** Noise of a part, and the number of each repetition: no two parts are the same. */
async function write(path: string): Promise<void> {
  const file = await open(path, "w");
  const part = randomFillSync(Buffer.alloc(CHUNK_BYTES));
  for (let at = 0; at < SIZE; at += CHUNK_BYTES) {
    part.writeUInt32LE(at / CHUNK_BYTES);
    await file.write(part, 0, Math.min(CHUNK_BYTES, SIZE - at));
  }
  await file.close();
}

async function hashOf(path: string, start = 0, end = SIZE): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path, { start, end: end - 1 })) hash.update(piece);
  return hash.digest("hex");
}

async function fetchesWhole(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "openstorage-large-"));
  const shelf = await Shelf.start();
  const matrix = new Matrix("2.05 GB", ["certified URL", "storage.url()"]);
  try {
    await shelf.network.setLimit(shelf.user, 2 * SIZE);
    await shelf.network.topUp(100_000_000_000_000n);
    const path = join(folder, "large");
    await write(path);
    const at = await shelf.store(await fileSource(path), "application/octet-stream");
    const ways = { "certified URL": at.plain({ seekable: false }), "storage.url()": at.plain() };
    for (const [way, url] of Object.entries(ways)) {
      const got = join(folder, "got");
      const whole = async (what: string, program: string, args: string[], kept?: number) => {
        if (kept === undefined) await rm(got, { force: true });
        else await truncate(got, kept);
        const { code, err } = await run(folder, program, args, LARGE_MS);
        const size = await stat(got).then(({ size }) => size, () => 0);
        const isRight = code === 0 && size === SIZE && (await hashOf(got)) === at.reference.blobId;
        matrix.add(what, way, isRight ? "right" : code === 0 ? `**wrong**: ${size} bytes` : `refused (${code})`);
        assert.ok(isRight || code !== 0, `${what} by the ${way}: ${size} bytes, exit 0 ${err}`);
        assert.ok(isRight || way === "certified URL", `${what} by the ${way}: ${code} ${err}`);
      };
      await whole("`curl`", "curl", ["-sS", "-f", "-o", got, url]);
      if ((await stat(got).catch(() => undefined))?.size !== SIZE) await run(folder, "cp", [path, got]);
      await whole("`curl -C -` with 2,000,000,000 on disk", "curl", ["-sS", "-f", "-C", "-", "-o", got, url], CERTIFIED_GET_BYTES_MAX);
      if ((await stat(got)).size !== SIZE) await run(folder, "cp", [path, got]);
      await whole("`wget -c` with 1,999,999,999 on disk", "wget", ["-q", "-c", "-t", "1", "-O", got, url], CERTIFIED_GET_BYTES_MAX - 1);
      await whole("`aria2c -x4`", "aria2c", ["-q", "-x4", "-s4", "--max-tries=1", "--file-allocation=none", "-d", folder, "-o", "got", url]);
      for (const [range, start, end] of [
        ["0-99", 0, 100],
        ["-100", SIZE - 100, SIZE],
        ["2000000000-2000000099", 2_000_000_000, 2_000_000_100],
        ["1999999990-2000000009", 1_999_999_990, 2_000_000_010],
        ["2040000000-", 2_040_000_000, SIZE],
      ] as const) {
        const { code, out } = await run(folder, "curl", ["-sS", "-f", "-r", range, url]);
        const isRight = code === 0 && createHash("sha256").update(out).digest("hex") === (await hashOf(path, start, end));
        matrix.add(`\`curl -r ${range}\``, way, isRight ? "right" : code === 0 ? `**wrong**: ${out.byteLength} bytes` : `refused (${code})`);
        assert.ok(isRight, `${range} by the ${way}: exit ${code}, ${out.byteLength} bytes\n${shelf.tap.lines().join("\n")}`);
      }
      const { out } = await run(folder, "curl", ["-sS", "-I", url]);
      assert.match(out.toString(), new RegExp(`^content-length: ${SIZE}\r$`, "im"), way);
      shelf.tap.lines();
    }
  } finally {
    matrix.print();
    await shelf.stop();
    await rm(folder, { recursive: true });
  }
}

if (process.env["OPENSTORAGE_FULL"]) test("2.05 GB come whole, or with an error", fetchesWhole);
