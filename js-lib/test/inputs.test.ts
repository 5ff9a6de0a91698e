/** What apps have and are, against the deployed canisters: data of every kind, names, sign-ins that end, no home folder. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, test } from "node:test";
import { promisify } from "node:util";

import { Actor, HttpAgent } from "@icp-sdk/core/agent";
import { DelegationChain, DelegationIdentity, Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { type BlobReference, MemoryResumeStore, OpenStorage, passphrase, referenceToCandid, type Source, type UploadData } from "@openstorage/client";
import { type _SERVICE as Bucket, idlFactory } from "@openstorage/client/candid/bucket";
import { downloadToFile, fileSource } from "@openstorage/client/node";

import { eventually, Network, tokenFor, type User } from "./network.js";
import { failure, packageDir, pattern, sha256 } from "./support.js";

const network = await Network.start();
const dir = await mkdtemp(join(tmpdir(), "openstorage-inputs-"));
after(async () => {
  await network.stop();
  await rm(dir, { recursive: true });
});

const MB = 1_000_000;

/** What the bucket keeps of the caller's reference. */
async function kept(user: User, { bucket, blobId }: BlobReference): Promise<{ name: string | undefined; mimeType: string }> {
  const actor = Actor.createActor<Bucket>(idlFactory, { agent: user.agent, canisterId: bucket });
  const answer = await actor.blob_info({ blob_id: Buffer.from(blobId, "hex") });
  const [found] = "Ok" in answer ? answer.Ok.references : [];
  return { name: found?.name[0], mimeType: found?.mime_type ?? "" };
}

test("bytes, text and streams of every kind go up", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const bytes = pattern(2 * MB + 7);
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  // A variable of the plain type, which may be of shared memory.
  const plain: Uint8Array = shared;
  const half = bytes.length >> 1;
  const size = bytes.length;
  const data: [string, UploadData, { size?: number }?][] = [
    ["ArrayBuffer", bytes.buffer],
    ["SharedArrayBuffer", shared.buffer],
    ["Uint8Array", plain],
    ["DataView", new DataView(bytes.buffer)],
    ["Buffer", Buffer.from(bytes)],
    ["Blob", new Blob([bytes])],
    ["ReadableStream", new Blob([bytes]).stream(), { size }],
    ["Readable", Readable.from([bytes.subarray(0, half), bytes.subarray(half)]), { size }],
    ["async iterable", (async function* () { yield bytes; })(), { size }],
  ];
  const path = join(dir, "a file");
  await writeFile(path, bytes);
  data.push(["ReadStream", createReadStream(path), { size }]);
  for (const [what, one, more] of data) {
    const reference = await storage.upload(one, { accessorIds: [accessorId], ...more }).done;
    assert.equal(reference.blobId, sha256(bytes), what);
    if (!more) assert.equal((await storage.estimate(one)).blobId, reference.blobId, what);
  }
  const text = await storage.upload("Grüße, 世界", { accessorIds: [accessorId] }).done;
  assert.deepEqual([text.blobId, text.mimeType], [sha256(Buffer.from("Grüße, 世界")), "text/plain"]);
  await assert.rejects(storage.upload(Readable.from(["text"]), { accessorIds: [accessorId], size: 4 }).done, { code: "SourceUnreadable" });
  const unsized = () => storage.upload(Readable.from([bytes]), { accessorIds: [accessorId] });
  assert.throws(unsized, failure("InvalidOption", { option: "size" }));
});

test("a type counts in any case and without its parameters, whoever says it", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const cases: [UploadData, string | undefined, string][] = [
    [pattern(11), "VIDEO/MP4", "video/mp4"],
    [pattern(12), "Text/HTML; charset=utf-8", "text/html"],
    [new File([pattern(13)], "a", { type: "image/PNG" }), undefined, "image/png"],
    [new File([pattern(14)], "a", { type: "text/plain;charset=utf-8" }), undefined, "text/plain"],
    [new File([pattern(15)], "a", { type: "no type" }), undefined, "application/octet-stream"],
    [pattern(16), undefined, "application/octet-stream"],
  ];
  for (const [data, mimeType, expected] of cases) {
    const reference = await storage.upload(data, { accessorIds: [accessorId], ...(mimeType && { mimeType }) }).done;
    assert.deepEqual([reference.mimeType, (await kept(user, reference)).mimeType], [expected, expected]);
  }
});

test("a file on disk has its own name and type", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const names = { "a film.MP4": "video/mp4", "song.m4a": "audio/mp4", "Übersicht 1.pdf": "application/pdf", "no ending": "application/octet-stream", ".png": "image/png" };
  for (const [name, mimeType] of Object.entries(names)) {
    const path = join(dir, name);
    await writeFile(path, name);
    const reference = await storage.upload(await fileSource(path), { accessorIds: [accessorId] }).done;
    assert.equal(reference.mimeType, mimeType, name);
    assert.deepEqual(await kept(user, reference), { name, mimeType });
  }
  const path = join(dir, "voice.m4a");
  await writeFile(path, "voice");
  const options = { accessorIds: [accessorId], name: "other", mimeType: "audio/x" };
  const reference = await storage.upload(await fileSource(path), options).done;
  assert.deepEqual(await kept(user, reference), { name: "other", mimeType: "audio/x" });
});

test("an encrypted file comes back with its name and type, as a file, a stream and on disk", async () => {
  const { user, chat, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const bytes = pattern(3 * MB);
  const key = passphrase("words", { iterations: 1 });
  const file = new File([bytes], "secret plan.PDF", { type: "application/pdf" });
  const reference = await storage.upload(file, { accessorIds: [accessorId], encryptFor: key }).done;
  assert.deepEqual(await kept(user, reference), { name: undefined, mimeType: "application/octet-stream" });
  await user.chat.send_message({ chat_id: chat.chat_id, text: "", blob: [referenceToCandid(reference)], name: [], preview: [] });
  const options = { ...(await tokenFor(user, chat.chat_id)), decryptWith: key };
  const inside = { name: "secret plan.PDF", mimeType: "application/pdf" };
  const back = await storage.download(reference, options);
  assert.ok(back instanceof File);
  assert.deepEqual({ name: back.name, mimeType: back.type }, inside);
  assert.equal(sha256(new Uint8Array(await back.arrayBuffer())), sha256(bytes));
  assert.deepEqual(await storage.download(reference, { ...options, to: new WritableStream() }), inside);
  assert.deepEqual(await downloadToFile(storage, reference, join(dir, "back"), options), inside);
});

test("a file that is larger than the whole allowance is refused before it has been read", async () => {
  const { user, accessorId } = await network.userWithChat();
  await network.setLimit(user, 20 * MB);
  const storage = await user.storage();
  let read = 0;
  const endless: Source = {
    name: "endless",
    size: 50_000 * MB,
    stream: () => new ReadableStream({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        controller.enqueue(new Uint8Array(MB));
        read += MB;
      },
    }),
    slice: async () => assert.fail("a chunk was read"),
  };
  await assert.rejects(storage.upload(endless, { accessorIds: [accessorId] }).done, failure("AllowanceExceeded", { byteLimit: 20 * MB }));
  assert.ok(read < endless.size / 2, `${read} bytes were read`);
  await assert.rejects((await (await network.stranger()).storage()).upload(endless, { accessorIds: [accessorId] }).done, failure("NotRegistered", {}));
});

test("a sign-in that ends during an upload says so, and the upload goes on after the next", async () => {
  const { user, accessorId } = await network.userWithChat();
  const resumeStore = new MemoryResumeStore();
  const signIn = async (ms: number) => {
    const session = Ed25519KeyIdentity.generate();
    const chain = await DelegationChain.create(user.identity, session.getPublicKey(), new Date(Date.now() + ms));
    const identity = DelegationIdentity.fromDelegation(session, chain);
    const agent = await HttpAgent.create({ host: network.url, identity, shouldFetchRootKey: true, retryTimes: 0 });
    return new OpenStorage({ agent, indexCanisterId: network.index, resumeStore, cache: false });
  };
  const bytes = pattern(12 * MB);
  const storage = await signIn(4_000);
  const upload = storage.upload(bytes, { accessorIds: [accessorId], onProgress: ({ phase, bytesDone }) => {
    if (phase === "uploading" && bytesDone >= 2 * MB && bytesDone < 12 * MB) upload.pause();
  } });
  await eventually("it is paused", async () => (upload.state === "paused" ? true : undefined));
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  upload.resume();
  await assert.rejects(upload.done, (error: Error & { kind?: string; code?: string; fields?: { status?: number; body?: string } }) => {
    assert.deepEqual([error.kind, error.code, error.fields?.status], ["access", "SignInRefused", 400], error.message);
    assert.match(error.fields?.body ?? "", /delegation expiry/);
    assert.match(error.message, /sign in again/);
    return true;
  });
  const later = await signIn(60_000);
  const [unfinished] = await later.unfinishedUploads();
  assert.ok(unfinished && unfinished.bytesDone >= 2 * MB, "nothing was kept");
  assert.equal((await later.upload(bytes, { accessorIds: [accessorId] }).done).blobId, sha256(bytes));
});

/** Uploads and downloads 5 MB where nothing can be kept; prints what happened. */
const PROGRAM = `
import { HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { OpenStorage } from "@openstorage/client";
const [host, index, key, accessor] = process.argv.slice(1);
const agent = await HttpAgent.create({ host, identity: Ed25519KeyIdentity.fromJSON(key), shouldFetchRootKey: true });
const storage = new OpenStorage({ agent, indexCanisterId: index });
const { size } = await storage.upload(new Uint8Array(5_000_000).fill(9), { accessorIds: [accessor] }).done;
console.log(JSON.stringify({ size, unfinished: await storage.unfinishedUploads() }));
`;

test("where there is no home folder, or none that can be written to, uploads go on without a record", async () => {
  const { user, accessorId } = await network.userWithChat();
  const { PATH } = process.env;
  for (const env of [{ HOME: "/dev/null/home" }, { HOME: dir, XDG_STATE_HOME: "/dev/null", XDG_CACHE_HOME: "/dev/null" }]) {
    const args = ["--input-type=module", "--eval", PROGRAM, network.url, network.index, JSON.stringify(user.identity.toJSON()), accessorId];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: packageDir, env: { PATH, ...env } });
    assert.deepEqual(JSON.parse(stdout), { size: 5 * MB, unfinished: [] }, JSON.stringify(env));
  }
});

test("what another device left unfinished is told in figures, listed and given up", async () => {
  const { user, accessorId } = await network.userWithChat();
  await network.setLimit(user, 50 * MB);
  const device = async () => user.storage({ resumeStore: new MemoryResumeStore() });
  const [phone, laptop] = [await device(), await device()];
  const left = new AbortController();
  const film = new File([pattern(40 * MB)], "film.mp4");
  const begun = phone.upload(film, { accessorIds: [accessorId], signal: left.signal, onProgress: ({ phase, bytesDone }) => {
    if (phase === "uploading" && bytesDone >= 6 * MB) left.abort();
  } });
  await assert.rejects(begun.done, { name: "AbortError" });

  const bytes = pattern(30 * MB + 1);
  await assert.rejects(laptop.upload(bytes, { accessorIds: [accessorId] }).done, (error: Error & { code?: string; fields?: Record<string, number> }) => {
    assert.equal(error.code, "AllowanceExceeded");
    assert.deepEqual(error.fields, { byteLimit: 50 * MB, bytesUsed: 0, bytesReserved: 40 * MB, leasedElsewhere: 0 });
    assert.match(error.message, /0\.0 MB are used and 40 MB are held by uploads that are not finished.*discard/);
    return true;
  });
  const [upload, ...more] = await laptop.uploads();
  assert.ok(upload && more.length === 0);
  const { blobId, size, bytesReserved, bytesDone, touchedMs, expiresMs, record } = upload;
  assert.deepEqual({ blobId, size, bytesReserved, record }, { blobId: begun.blobId, size: 40 * MB, bytesReserved: 40 * MB, record: undefined });
  assert.ok(bytesDone >= 6 * MB && bytesDone < 40 * MB, `${bytesDone}`);
  assert.ok(expiresMs > Date.now() && touchedMs <= Date.now() + 60_000);
  assert.equal((await phone.uploads())[0]?.record?.name, "film.mp4");
  assert.deepEqual(await laptop.unfinishedUploads(), []);

  await laptop.discardUpload(upload);
  assert.deepEqual([await laptop.uploads(), await phone.unfinishedUploads()], [[], []]);
  await laptop.upload(bytes, { accessorIds: [accessorId] }).done;
  assert.deepEqual(await (await (await network.stranger()).storage()).uploads(), []);
});
