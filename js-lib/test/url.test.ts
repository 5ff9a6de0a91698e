import assert from "node:assert/strict";
import { test } from "node:test";

import { type BlobId, type BlobUrlParts, blobUrl, MemoryResumeStore, OpenStorage, parseBlobId, type RangedBlob, type RangeWorker } from "@openstorage/client";

import { failure } from "./support.js";

const BUCKET = "ryjl3-tyaaa-aaaaa-aaaba-cai";
const ACCESSOR = "rrkah-fqaaa-aaaaa-aaaaq-cai";
const BLOB = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const parts: BlobUrlParts = {
  blobId: parseBlobId(BLOB),
  bucket: BUCKET,
  accessorId: ACCESSOR,
  token: "AQE-_9",
};

test("the bucket is a subdomain of a gateway with a name", () => {
  for (const [gateway, origin] of [
    ["https://icp0.io", `https://${BUCKET}.icp0.io`],
    ["http://localhost:4943/", `http://${BUCKET}.localhost:4943`],
    [new URL("https://RAW.icp0.io:443"), `https://${BUCKET}.raw.icp0.io`],
  ] as const) {
    const expected = `${origin}/${ACCESSOR}/${BLOB}?token=AQE-_9`;
    assert.equal(blobUrl(parts, { gateway }), expected);
  }
});

test("the bucket is a parameter where the gateway is an address, or on demand", () => {
  for (const gateway of ["http://127.0.0.1:4943", "http://[::1]:4943", "http://2130706433"]) {
    const expected = `${new URL(gateway).origin}/${ACCESSOR}/${BLOB}?canisterId=${BUCKET}&token=AQE-_9`;
    assert.equal(blobUrl(parts, { gateway }), expected);
  }
  assert.equal(
    blobUrl(parts, { gateway: "http://localhost:4943", form: "query" }),
    `http://localhost:4943/${ACCESSOR}/${BLOB}?canisterId=${BUCKET}&token=AQE-_9`,
  );
});

test("players that jump about have a path of their own", () => {
  const path = `/m/${ACCESSOR}/${BLOB}`;
  const how = { seekable: true };
  assert.equal(blobUrl(parts, { gateway: "https://icp0.io", ...how }), `https://${BUCKET}.icp0.io${path}?token=AQE-_9`);
  const local = { gateway: "http://127.0.0.1:4943", ...how };
  assert.equal(blobUrl(parts, local), `http://127.0.0.1:4943${path}?canisterId=${BUCKET}&token=AQE-_9`);
});

/** A storage that asks nobody. */
function offline(ranges?: Pick<RangeWorker, "url">): OpenStorage {
  const transport = {} as never;
  const kept = { cache: false, resumeStore: new MemoryResumeStore() } as const;
  const options = { transport, indexCanisterId: BUCKET, gateway: "https://icp0.io", ...kept };
  return new OpenStorage({ ...options, ...(ranges && { ranges: ranges as RangeWorker }) });
}

test("the URL is chosen by kind and size", () => {
  const storage = offline();
  for (const [mimeType, size, route] of [
    ["video/mp4", 1_000, "/m"],
    ["video/mp4", 9_000_000, "/m"],
    ["VIDEO/MP4", 9_000_000, "/m"],
    ["audio/x-m4a", 9_000_000, "/m"],
    ["image/png", 9_000_000, ""],
    ["application/pdf", 9_000_000, ""],
    ["video", 9_000_000, ""],
    ["text/plain", 2_000_000_000, ""],
    ["text/plain", 2_000_000_001, "/m"],
  ] as const) {
    const reference = { blobId: parts.blobId, bucket: BUCKET, mimeType, size };
    const { pathname } = new URL(storage.url(reference, ACCESSOR, parts.token));
    assert.equal(pathname, `${route}/${ACCESSOR}/${BLOB}`, `${mimeType}, ${size} bytes`);
    // Whoever says how it is to be gets it so.
    for (const seekable of [true, false]) {
      const { pathname } = new URL(storage.url(reference, ACCESSOR, parts.token, { seekable }));
      assert.equal(pathname, `${seekable ? "/m" : ""}/${ACCESSOR}/${BLOB}`);
    }
  }
});

test("a range worker serves what is played, and nothing else", () => {
  const given: RangedBlob[] = [];
  let isActive = true;
  const url = (blob: RangedBlob) => (given.push(blob), isActive ? "https://app.test/by-worker" : undefined);
  const storage = offline({ url });
  const film = { blobId: parts.blobId, bucket: BUCKET, mimeType: "video/mp4", size: 9_000_000 };
  assert.equal(storage.url(film, ACCESSOR, parts.token), "https://app.test/by-worker");
  assert.deepEqual(given.pop(), { blobId: BLOB, bucket: BUCKET, accessorId: ACCESSOR, token: parts.token, size: 9_000_000, mimeType: "video/mp4" });
  assert.match(storage.url({ ...film, mimeType: "image/png" }, ACCESSOR, parts.token), /^https:.*icp0/);
  assert.match(storage.url(film, ACCESSOR, parts.token, { seekable: true }), /^https:.*icp0/);
  isActive = false;
  assert.match(storage.url(film, ACCESSOR, parts.token), /icp0\.io\/m\//);
  // What is wrong is refused, worker or not.
  assert.throws(() => storage.url(film, ACCESSOR, "no token"), failure("InvalidToken", { max: 192 }));
});

test("an address has no subdomains", () => {
  const gateway = "http://127.0.0.1:4943";
  const refusal = failure("InvalidGateway", { gateway });
  assert.throws(() => blobUrl(parts, { gateway, form: "subdomain" }), refusal);
});

test("a gateway is an http origin", () => {
  for (const gateway of [
    "",
    "icp0.io",
    "ftp://icp0.io",
    "javascript:alert(1)",
    "https://icp0.io/path",
    "https://icp0.io/?x",
    "https://icp0.io/#x",
    "https://user:secret@icp0.io",
  ]) {
    assert.throws(() => blobUrl(parts, { gateway }), failure("InvalidGateway", { gateway }));
  }
});

test("a principal may be an object that knows its text", () => {
  const gateway = "https://icp0.io";
  const object = { ...parts, bucket: { toText: () => BUCKET }, accessorId: { toText: () => ACCESSOR } };
  assert.equal(blobUrl(object, { gateway }), blobUrl(parts, { gateway }));
});

test("the longest and the shortest principal fit", () => {
  const longest = `${"abcde-".repeat(10)}abc`;
  for (const bucket of [longest, "aaaaa-aa", "2vxsx-fae"]) {
    assert.match(blobUrl({ ...parts, bucket }, { gateway: "https://icp0.io" }), new RegExp(bucket));
  }
});

test("nothing but a principal gets into the host or the path", () => {
  const texts = ["", "a", "evil.example/", "../..", "RYJL3-TYAAA", "ryjl3-tyaaa-", "ryjl3--tyaaa", "ryjl3tyaaa"];
  for (const text of [...texts, `${BUCKET}\n`, `${"abcde-".repeat(10)}abcd`]) {
    for (const argument of ["bucket", "accessorId"]) {
      const wrong = { ...parts, [argument]: text };
      const refusal = failure("InvalidPrincipal", { argument });
      assert.throws(() => blobUrl(wrong, { gateway: "https://icp0.io" }), refusal);
    }
  }
});

test("nothing but a blob id is accepted as one", () => {
  const wrong = { ...parts, blobId: BLOB.toUpperCase() as BlobId };
  const refusal = failure("InvalidBlobId", { expected: "64 lower-case hex characters" });
  assert.throws(() => blobUrl(wrong, { gateway: "https://icp0.io" }), refusal);
});

test("a token is base64url of at most 192 characters, and stays out of the message", () => {
  for (const token of ["", "a b", "a=", "a&token=b", "a/b", "é", "t".repeat(193), undefined as unknown as string]) {
    assert.throws(
      () => blobUrl({ ...parts, token }, { gateway: "https://icp0.io" }),
      (error: Error) => {
        assert.ok(!token || !error.message.includes(token));
        return failure("InvalidToken", { max: 192 })(error);
      },
    );
  }
  blobUrl({ ...parts, token: "t".repeat(192) }, { gateway: "https://icp0.io" });
});
