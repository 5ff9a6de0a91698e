import assert from "node:assert/strict";
import { test } from "node:test";

import { type BlobId, type BlobUrlParts, blobUrl, parseBlobId } from "@openstorage/client";

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
