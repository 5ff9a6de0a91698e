/** The range worker's answers, byte by byte, before a gateway that may lie: no browser is needed for these. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, test } from "node:test";

import { CHUNK_BYTES, parseBlobId, type RangedBlob, startRangeWorker } from "@openstorage/client";
import { answerRanges } from "@openstorage/client/range-worker";

import { rangesUrl } from "../src/ranges.js";
import { failure, pattern, sha256 } from "./support.js";

/** What the gateway has, by the id of the blob, and what it was asked. */
const blobs = new Map<string, Uint8Array>();
const asked: string[] = [];
/** Changes what the gateway answers. */
let lie: (bytes: Uint8Array) => { status?: number; bytes: Uint8Array } = (bytes) => ({ bytes });

const gateway = createServer((from, to) => {
  const { pathname } = new URL(from.url ?? "", "http://localhost");
  const bytes = blobs.get(pathname.split("/")[2] ?? "");
  asked.push(from.headers.range ?? "whole");
  if (!bytes) return void to.writeHead(404).end();
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(from.headers.range ?? "") ?? [];
  const isRange = first !== undefined;
  const { status = isRange ? 206 : 200, bytes: told } = lie(isRange ? bytes.subarray(Number(first), Number(last) + 1) : bytes);
  to.writeHead(status, { "access-control-allow-origin": "*" }).end(told);
});
await new Promise<void>((resolve) => gateway.listen(0, "127.0.0.1", resolve));
after(() => void gateway.close());

const SCOPE = "https://app.test/";
const origin = `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`;

type Asked = Pick<Request, "url" | "method" | "headers" | "destination">;
const listeners = new Map<string, (event: { request: Asked; respondWith(answer: Promise<Response>): void }) => void>();
Object.assign(globalThis, {
  registration: { scope: SCOPE },
  clients: {},
  addEventListener: (type: string, listener: never) => void listeners.set(type, listener),
});
answerRanges({ gateway: origin });

/** Ids that are not hashes of the bytes serve where nothing can be checked by them. */
let ids = 0;
function stored(bytes: Uint8Array, { mimeType = "video/mp4", blobId, ...rest }: Partial<RangedBlob> = {}): RangedBlob {
  const id = parseBlobId(blobId ?? (++ids).toString(16).padStart(64, "0"));
  blobs.set(id, bytes);
  return { blobId: id, bucket: "ryjl3-tyaaa-aaaaa-aaaba-cai", accessorId: "aaaaa-aa", token: `t${ids}`, size: bytes.byteLength, mimeType, ...rest };
}

/** What the worker answers to a player that asks for a range; nothing where it leaves the request alone. */
async function ask(url: string, range?: string, destination: RequestDestination = "video"): Promise<Response | undefined> {
  let answer: Promise<Response> | undefined;
  const headers = new Headers(range === undefined ? {} : { range });
  listeners.get("fetch")?.({ request: { url, method: "GET", headers, destination }, respondWith: (given) => void (answer = given) });
  return answer;
}

async function answered(blob: RangedBlob, range?: string, destination?: RequestDestination): Promise<Response> {
  const answer = await ask(rangesUrl(blob, SCOPE), range, destination);
  assert.ok(answer);
  return answer;
}

const idOf = (bytes: Uint8Array) => parseBlobId(sha256(bytes));
const bytesOf = async (answer: Response) => Buffer.from(await answer.arrayBuffer());

test("any range comes exactly, out of whole parts", async () => {
  const bytes = pattern(2 * CHUNK_BYTES + 123);
  const size = bytes.byteLength;
  const blob = stored(bytes);
  for (const [range, start, end] of [
    ["bytes=0-", 0, size],
    ["bytes=0-1", 0, 2],
    ["bytes=0-0", 0, 1],
    [`bytes=0-${size - 1}`, 0, size],
    [`bytes=0-${2 * size}`, 0, size],
    ["bytes=-100", size - 100, size],
    [`bytes=-${2 * size}`, 0, size],
    ["bytes=1999999-2000000", 1_999_999, 2_000_001],
    ["bytes=2000000-", 2_000_000, size],
    ["bytes=3999999-", 3_999_999, size],
    [`bytes=${size - 1}-`, size - 1, size],
  ] as const) {
    const answer = await answered(blob, range);
    assert.equal(answer.status, 206, range);
    assert.equal(answer.headers.get("content-range"), `bytes ${start}-${end - 1}/${size}`, range);
    assert.equal(answer.headers.get("content-length"), String(end - start), range);
    assert.equal(Buffer.compare(await bytesOf(answer), bytes.subarray(start, end)), 0, range);
  }
  const parts = ["bytes=0-1999999", "bytes=2000000-3999999", `bytes=4000000-${size - 1}`];
  assert.deepEqual([...new Set(asked)].sort(), parts);
  // Players ask for the same part again and again.
  assert.equal(asked.length, parts.length);
});

test("without a range, or with what is none, all of it comes; a range behind the end is refused", async () => {
  const bytes = pattern(CHUNK_BYTES + 1);
  const blob = stored(bytes);
  for (const range of [undefined, "bytes=0-1,3-4", "bytes=2-1", "bytes=-", "items=0-1"]) {
    const answer = await answered(blob, range);
    assert.equal(answer.status, 200, range);
    assert.equal(answer.headers.get("content-length"), String(bytes.byteLength));
    assert.equal(Buffer.compare(await bytesOf(answer), bytes), 0, range);
  }
  for (const range of [`bytes=${bytes.byteLength}-`, "bytes=-0"]) {
    const answer = await answered(blob, range);
    assert.equal(answer.status, 416, range);
    assert.equal(answer.headers.get("content-range"), `bytes */${bytes.byteLength}`);
  }
});

test("a blob of one part is checked against its id", async () => {
  const bytes = pattern(1_000);
  const right = stored(bytes, { blobId: idOf(bytes) });
  assert.equal((await answered(right, "bytes=0-9")).status, 206);
  const wrong = stored(bytes, { blobId: idOf(pattern(999)) });
  assert.equal((await answered(wrong, "bytes=0-9")).status, 502);
});

test("a part that is refused, or not whole, is never given as if it were", async () => {
  const bytes = pattern(2 * CHUNK_BYTES);
  try {
    lie = (bytes) => ({ bytes, status: 503 });
    assert.equal((await answered(stored(bytes), "bytes=0-")).status, 503);
    lie = (bytes) => ({ bytes: bytes.subarray(1) });
    assert.equal((await answered(stored(bytes), "bytes=0-")).status, 502);
    lie = (bytes) => ({ bytes, status: 200 });
    assert.equal((await answered(stored(bytes), "bytes=0-")).status, 502);
    // The second part: the first has been given, so the answer breaks off.
    const blob = stored(bytes);
    lie = (given) => ({ bytes: given, status: asked.at(-1) === "bytes=0-1999999" ? 206 : 503 });
    await assert.rejects(bytesOf(await answered(blob, "bytes=0-")));
    // And what failed is asked for anew.
    lie = (given) => ({ bytes: given });
    assert.equal(Buffer.compare(await bytesOf(await answered(blob, "bytes=0-")), bytes), 0);
  } finally {
    lie = (bytes) => ({ bytes });
  }
});

test("another token opens nothing that one has opened", async () => {
  const blob = stored(pattern(CHUNK_BYTES + 5));
  assert.equal((await answered(blob, "bytes=0-9")).status, 206);
  blobs.delete(blob.blobId);
  assert.equal((await answered(blob, "bytes=0-9")).status, 206, "kept");
  assert.equal((await answered({ ...blob, token: "another" }, "bytes=0-9")).status, 404);
});

test("nothing of a stranger runs in the app's origin: what no player asked for is saved", async () => {
  const bytes = pattern(10);
  const of = (mimeType: string) => stored(bytes, { mimeType, blobId: idOf(bytes) });
  const shown = await answered(of("video/mp4"), undefined, "video");
  assert.equal(shown.headers.get("content-type"), "video/mp4");
  assert.equal(shown.headers.get("content-disposition"), null);
  for (const [mimeType, destination] of [
    ["video/mp4", "document"],
    ["video/mp4", "iframe"],
    ["text/html", "document"],
    ["text/html", "video"],
    ["image/svg+xml", "image"],
    ["text/javascript", "script"],
    ["text/css", "style"],
  ] as const) {
    const { headers } = await answered(of(mimeType), undefined, destination);
    assert.equal(headers.get("content-type"), "application/octet-stream", `${mimeType} as ${destination}`);
    assert.equal(headers.get("content-disposition"), "attachment");
    assert.equal(headers.get("x-content-type-options"), "nosniff");
    assert.match(headers.get("content-security-policy") ?? "", /^sandbox/);
  }
  const named = stored(bytes, { saveAs: "é (1)'.mp4\r\n", blobId: idOf(bytes) });
  assert.equal((await answered(named)).headers.get("content-disposition"), "attachment; filename*=UTF-8''%C3%A9%20%281%29%27.mp4%0D%0A");
});

test("the empty blob is served", async () => {
  const empty = new Uint8Array(0);
  const answer = await answered(stored(empty, { blobId: idOf(empty) }));
  assert.deepEqual([answer.status, (await bytesOf(answer)).byteLength], [200, 0]);
});

test("what is not a URL of the worker's is left alone, and nonsense below its folder is refused", async () => {
  for (const url of [SCOPE, `${SCOPE}film.mp4`, "https://other.test/openstorage-ranges/a/b/c"]) assert.equal(await ask(url), undefined, url);
  for (const path of ["", "a/b/c", "ryjl3-tyaaa-aaaaa-aaaba-cai/aaaaa-aa/zz?size=5&token=t", `x/y/${"0".repeat(64)}?size=-1`]) {
    assert.equal((await ask(`${SCOPE}openstorage-ranges/${path}`))?.status, 400, path);
  }
});

test("the raw domain is no gateway: it verifies nothing", () => {
  for (const gateway of ["https://raw.icp0.io", "http://raw.localhost:4943"]) {
    const message = { gateway };
    assert.throws(() => answerRanges({ gateway }), failure("InvalidGateway", message));
  }
});

test("where there are no service workers the page goes on without", async () => {
  const worker = await startRangeWorker("/worker.js");
  assert.equal(worker.isActive, false);
  assert.equal(worker.url(stored(pattern(1))), undefined);
});
