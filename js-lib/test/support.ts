/** Data and sources for the tests. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import { type ErrorCode, isOpenStorageError, type StreamSource } from "@openstorage/client";

/** The package's directory: compiled tests are in `dist/test`. */
export const packageDir = new URL("../../", import.meta.url);

interface Golden {
  limits: { chunk_bytes: number; blob_bytes_max: number; token_chars_max: number };
  chunks: { size: number; count: number; last_chunk_bytes: number }[];
  hashes: { size: number; sha256: string }[];
  blob_ids: { valid: string[]; invalid: string[] };
}

export const golden = JSON.parse(
  readFileSync(new URL("test/golden.json", packageDir), "utf8"),
) as Golden;

/** The golden file's data: byte `i` is `i mod 251`. */
export function pattern(size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(size).map((_, i) => i % 251);
}

/** What an implementation that has nothing to do with ours says. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Random numbers that are the same in every run: a linear congruential generator. */
export function random(seed: number): (below: number) => number {
  let state = BigInt(seed);
  return (below) => {
    state = (state * 6_364_136_223_846_793_005n + 1_442_695_040_888_963_407n) & (2n ** 64n - 1n);
    return Number((state >> 33n) % BigInt(below));
  };
}

/** A source that gives the pieces of `pieces` and says that it has `size` bytes. */
export function sourceOfPieces(
  size: number,
  pieces: () => Iterable<unknown> | AsyncIterable<unknown>,
): StreamSource & { cancelled: unknown[] } {
  const cancelled: unknown[] = [];
  return {
    name: "pieces",
    size,
    cancelled,
    stream() {
      const all = pieces();
      const next = Symbol.asyncIterator in all ? all[Symbol.asyncIterator]() : all[Symbol.iterator]();
      return new ReadableStream(
        {
          async pull(controller) {
            const { done, value } = await next.next();
            if (done) controller.close();
            else controller.enqueue(value as Uint8Array);
          },
          cancel: (reason) => void cancelled.push(reason),
        },
        { highWaterMark: 0 },
      );
    },
  };
}

/** For `assert.throws` and `assert.rejects`: our error of that code, with these fields. */
export function failure(code: ErrorCode, fields: object): (error: unknown) => true {
  return (error) => {
    assert.ok(isOpenStorageError(error), `not an OpenStorageError: ${error}`);
    assert.deepEqual({ code: error.code, fields: error.fields }, { code, fields });
    return true;
  };
}

/** The README's first program, with the ids that its reader fills in. */
export function readmeProgram(index: string, chat: string): string {
  const text = readFileSync(new URL("README.md", packageDir), "utf8");
  const code = /^`src\/main\.ts`,[^]*?^```ts\n([^]*?)^```$/m.exec(text)?.[1];
  if (!code) throw new Error("the README has no src/main.ts");
  return code.replace('INDEX = "…"', `INDEX = "${index}"`).replace('CHAT = "…"', `CHAT = "${chat}"`);
}
