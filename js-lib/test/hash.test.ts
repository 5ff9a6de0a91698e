import assert from "node:assert/strict";
import { test } from "node:test";

import { hashSource, type StreamSource, sourceOf, sourceOfStream } from "@openstorage/client";

// Both ways of hashing, whatever the size: the choice between them is not part of the API.
import { type HashOptions, hashInOneShot, hashInStream } from "../src/hash.js";
import { failure, golden, pattern, random, sha256, sourceOfPieces } from "./support.js";

const WAYS: [string, (source: StreamSource, options: HashOptions) => Promise<string>][] = [
  ["whichever fits", hashSource],
  ["one shot", hashInOneShot],
  ["stream", hashInStream],
];

function* cut(bytes: Uint8Array, below: (n: number) => number, pieceMax: number) {
  for (let at = 0; at < bytes.length; ) {
    const end = at + below(pieceMax + 1); // also empty pieces
    yield bytes.slice(at, end);
    at = end;
  }
}

for (const [way, hash] of WAYS) {
  test(`${way}: the hashes that the standard gives`, async () => {
    // FIPS 180-2, appendix B.
    const vectors = [
      ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
      ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
      [
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      ],
      ["a".repeat(1e6), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"],
    ] as const;
    for (const [text, expected] of vectors) {
      assert.equal(await hash(sourceOf(new TextEncoder().encode(text)), {}), expected);
    }
  });

  test(`${way}: the golden hashes, from bytes, Blob, File and stream`, async () => {
    for (const { size, sha256: expected } of golden.hashes) {
      const bytes = pattern(size);
      const stream = sourceOfStream(new Blob([bytes]).stream(), size);
      const sources = [sourceOf(bytes), sourceOf(new Blob([bytes])), sourceOf(new File([bytes], "x"))];
      for (const source of [...sources, stream]) {
        assert.equal(await hash(source, {}), expected, `${size} bytes of ${source.name}`);
      }
    }
  });

  test(`${way}: the same hash wherever the stream is cut`, async () => {
    const below = random(4);
    for (let round = 0; round < 60; round++) {
      const bytes = new Uint8Array(below(20_000)).map(() => below(256));
      const pieceMax = 1 + below(round % 2 ? 200 : 20_000);
      const source = sourceOfPieces(bytes.length, () => cut(bytes, below, pieceMax));
      assert.equal(await hash(source, {}), sha256(bytes));
    }
    const bytes = pattern(9_000_001);
    const source = sourceOfPieces(bytes.length, () => cut(bytes, below, 3_000_000));
    assert.equal(await hash(source, {}), sha256(bytes));
  });

  test(`${way}: progress rises and ends at the total`, async () => {
    for (const size of [0, 1, 2_000_000, 9_000_000]) {
      const seen: number[] = [];
      await hash(sourceOf(pattern(size)), {
        onProgress({ bytesDone, bytesTotal }) {
          assert.equal(bytesTotal, size);
          seen.push(bytesDone);
        },
      });
      assert.equal(seen.at(-1), size);
      assert.ok(seen.every((done, i) => i === 0 || done > seen[i - 1]!), seen.join());
    }
  });

  test(`${way}: a source that gives too few bytes is found out`, async () => {
    const source = sourceOfPieces(10, () => [pattern(4), pattern(5)]);
    await assert.rejects(hash(source, {}), failure("SizeMismatch", { expected: 10, received: 9 }));
  });

  test(`${way}: a source that gives too many bytes is stopped`, async () => {
    const endless = function* () {
      for (;;) yield pattern(4);
    };
    const source = sourceOfPieces(10, endless);
    await assert.rejects(hash(source, {}), failure("SizeMismatch", { expected: 10, received: 12 }));
    assert.equal(source.cancelled.length, 1);
  });

  test(`${way}: a stream that fails is named, with its cause`, async () => {
    const cause = new Error("disk gone");
    const broken = function* () {
      yield pattern(4);
      throw cause;
    };
    await assert.rejects(hash(sourceOfPieces(10, broken), {}), (error: Error) => {
      assert.equal(error.cause, cause);
      return failure("SourceUnreadable", { name: "pieces" })(error);
    });
  });

  test(`${way}: text in a stream is refused, not hashed as something else`, async () => {
    const source = sourceOfPieces(3, () => ["abc"]);
    await assert.rejects(hash(source, {}), failure("SourceUnreadable", { name: "pieces" }));
  });

  test(`${way}: an aborted signal keeps the source untouched`, async () => {
    const reason = new Error("changed my mind");
    const source = sourceOfPieces(1, () => assert.fail("was read"));
    await assert.rejects(hash(source, { signal: AbortSignal.abort(reason) }), reason);
  });

  test(`${way}: an abort ends a read that hangs`, async () => {
    const controller = new AbortController();
    const hanging = async function* () {
      yield pattern(1);
      setImmediate(() => controller.abort());
      await new Promise(() => {});
    };
    const source = sourceOfPieces(2, hanging);
    await assert.rejects(hash(source, { signal: controller.signal }), { name: "AbortError" });
    assert.deepEqual(source.cancelled, [controller.signal.reason]);
  });
}

test("a progress callback that throws ends the hash and cancels the stream", async () => {
  const reason = new Error("no more");
  const piece = pattern(2_000_000);
  const source = sourceOfPieces(8_000_001, function* () {
    for (;;) yield piece;
  });
  const onProgress = () => {
    throw reason;
  };
  await assert.rejects(hashInStream(source, { onProgress }), reason);
  assert.equal(source.cancelled.length, 1);
});

test("other work has its turn while bytes in memory are hashed", async () => {
  const controller = new AbortController();
  let bytesDone = 0;
  setImmediate(() => controller.abort());
  const hashing = hashSource(sourceOf(pattern(40_000_000)), {
    signal: controller.signal,
    onProgress: (progress) => void ({ bytesDone } = progress),
  });
  await assert.rejects(hashing, { name: "AbortError" });
  assert.ok(bytesDone < 40_000_000, `${bytesDone} bytes before the abort was seen`);
});

test("hashes that run side by side do not mix", async () => {
  const inputs = Array.from({ length: 5 }, (_, i) => pattern(5_000_000 + i));
  const ids = await Promise.all(inputs.map((bytes) => hashInStream(sourceOf(bytes), {})));
  assert.deepEqual(ids, inputs.map(sha256));
});
