import assert from "node:assert/strict";
import { test } from "node:test";

import { type KeyProvider, passphrase, rawKey, type Source, sourceOf } from "@openstorage/client";

import { DecryptedBlob, encryptedSource } from "../src/encryption.js";
import { readPieces } from "../src/source.js";
import { failure, pattern, random } from "./support.js";

const PART = 262_144 - 16;
const key = () => rawKey(crypto.getRandomValues(new Uint8Array(32)));

async function all(source: Source): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  for await (const piece of readPieces(source)) pieces.push(piece);
  return new Uint8Array(Buffer.concat(pieces));
}

async function encrypt(bytes: Uint8Array<ArrayBuffer>, ...providers: KeyProvider[]) {
  const source = await encryptedSource(sourceOf(bytes), { mimeType: "image/png", name: "cat.png" }, providers);
  return { source, sealed: await all(source) };
}

const open = (sealed: Uint8Array<ArrayBuffer>, provider: KeyProvider) =>
  DecryptedBlob.open(sealed.byteLength, async (start, end) => sealed.slice(start, end), provider);

for (const size of [0, 1, PART - 1, PART, PART + 1, 3 * PART, 1_000_000]) {
  test(`${size} bytes come back, whole and in ranges`, async () => {
    const bytes = pattern(size);
    const provider = key();
    const { source, sealed } = await encrypt(bytes, provider);
    assert.equal(sealed.byteLength, source.size);
    const blob = await open(sealed, provider);
    assert.equal(blob.size, size);
    assert.deepEqual(blob.described, { mimeType: "image/png", name: "cat.png" });
    assert.ok(Buffer.from(await blob.read(0, size)).equals(bytes));
    const below = random(size + 1);
    for (let round = 0; round < 10; round++) {
      const start = below(size + 1);
      const end = start + below(size - start + 1);
      assert.ok(Buffer.from(await blob.read(start, end)).equals(bytes.subarray(start, end)), `${start} to ${end}`);
    }
    for (const pieceBytes of [1_000, PART, 2_000_000]) {
      const cut = async function* () {
        for (let at = 0; at < sealed.byteLength; at += pieceBytes) yield sealed.slice(at, at + pieceBytes);
      };
      const pieces: Uint8Array[] = [];
      for await (const piece of blob.decrypt(cut())) pieces.push(piece);
      assert.ok(Buffer.concat(pieces).equals(bytes));
    }
  });
}

test("slices of the encrypted source are what its stream gives, every time", async () => {
  const { source, sealed } = await encrypt(pattern(1_000_000), key());
  const below = random(3);
  for (let round = 0; round < 30; round++) {
    const start = below(source.size + 1);
    const end = start + below(source.size - start + 1);
    assert.ok(Buffer.from(await source.slice(start, end)).equals(sealed.subarray(start, end)), `${start} to ${end}`);
  }
  assert.ok(Buffer.from(await all(source)).equals(sealed));
});

test("a range reads only the parts around it", async () => {
  const provider = key();
  const { sealed } = await encrypt(pattern(20 * PART), provider);
  const reads: number[] = [];
  const blob = await DecryptedBlob.open(sealed.byteLength, async (start, end) => (reads.push(end - start), sealed.slice(start, end)), provider);
  await blob.read(10 * PART - 5, 10 * PART + 5);
  assert.ok(reads[0]! <= 65_536 && reads[1] === 2 * 262_144, reads.join());
});

test("the same bytes are encrypted differently each time", async () => {
  const provider = key();
  const [a, b] = [await encrypt(pattern(100), provider), await encrypt(pattern(100), provider)];
  assert.ok(!Buffer.from(a.sealed).equals(b.sealed));
});

test("every one of the providers opens it, nobody else", async () => {
  const [alice, bob] = [key(), passphrase("correct horse battery staple", { iterations: 1_000 })];
  const { sealed } = await encrypt(pattern(100), alice, bob, key());
  for (const provider of [alice, bob]) assert.deepEqual(await (await open(sealed, provider)).read(0, 100), pattern(100));
  await assert.rejects(open(sealed, key()), failure("WrongKey", { provider: "raw" }));
  const wrong = passphrase("correct horse battery stable", { iterations: 1_000 });
  await assert.rejects(open(sealed, wrong), failure("WrongKey", { provider: "passphrase" }));
});

test("a flipped bit is found wherever it is, also a cut and a swap of parts", async () => {
  const provider = key();
  const { sealed } = await encrypt(pattern(3 * PART), provider);
  const read = async (bytes: Uint8Array<ArrayBuffer>) => (await open(bytes, provider)).read(0, 3 * PART);
  const places = [0, 5, 9, 13, 20, 22, 40, 100, 150, sealed.byteLength - 3 * 262_144 + 7, sealed.byteLength - 1];
  for (const place of places) {
    const damaged = sealed.slice();
    damaged[place]! ^= 4;
    await assert.rejects(read(damaged), (error: { code?: string }) => ["NotEncrypted", "WrongKey"].includes(error.code!), `byte ${place}`);
  }
  await assert.rejects(read(sealed.slice(0, -262_144)), { code: "NotEncrypted" });
  const swapped = sealed.slice();
  const first = sealed.byteLength - 3 * 262_144;
  swapped.set(sealed.subarray(first + 262_144, first + 2 * 262_144), first);
  await assert.rejects(read(swapped), { code: "NotEncrypted" });
});

test("what is no encrypted blob is told from one", async () => {
  for (const bytes of [new Uint8Array(0), pattern(10), pattern(100_000)]) {
    await assert.rejects(open(bytes, key()), { code: "NotEncrypted" });
  }
});

test("a hostile header cannot make the reader work for ever", async () => {
  const provider = passphrase("x", { iterations: 1 });
  const wrapped = await provider.wrap(new Uint8Array(32));
  new DataView(wrapped.buffer).setUint32(0, 0xffff_ffff);
  await assert.rejects(provider.unwrap(wrapped), RangeError);
});

test("where there is no WebCrypto, encrypting and decrypting say how to get it", async (t) => {
  const words = passphrase("x", { iterations: 1 });
  const { sealed } = await encrypt(pattern(10), words);
  Object.defineProperty(crypto, "subtle", { value: undefined, configurable: true });
  t.after(() => delete (crypto as { subtle?: unknown }).subtle);
  const refused = failure("NotSupported", { feature: "WebCrypto" });
  assert.throws(() => rawKey(new Uint8Array(32)), refused);
  await assert.rejects(encryptedSource(sourceOf(pattern(10)), { mimeType: "a/b" }, [words]), refused);
  await assert.rejects(open(sealed, words), refused);
});

test("keys and passphrases that cannot be are refused", () => {
  assert.throws(() => rawKey(new Uint8Array(31)), failure("InvalidOption", { option: "key" }));
  assert.throws(() => passphrase(""), failure("InvalidOption", { option: "passphrase" }));
  assert.throws(() => passphrase("x", { iterations: 1e9 }), failure("InvalidOption", { option: "passphrase" }));
});
