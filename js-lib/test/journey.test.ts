/** The library against the deployed canisters on a local network. */

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import {
  type BlobReference,
  MemoryCacheStore,
  MemoryResumeStore,
  type OpenStorage,
  passphrase,
  type Progress,
  rawKey,
  referenceToCandid,
} from "@openstorage/client";
import { downloadToFile, fileSource, FolderResumeStore } from "@openstorage/client/node";

import { eventually, Network, tokenFor, type User } from "./network.js";
import { failure, pattern, random, sha256 } from "./support.js";

const network = await Network.start();
after(() => network.stop());

const MB = 1_000_000;

/** Bytes that no other test has. */
let seed = 100;
function fresh(size: number): Uint8Array<ArrayBuffer> {
  const below = random(++seed);
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 1 + (size >> 12)) bytes[at] = below(256);
  return bytes;
}

async function send(user: User, chatId: bigint, reference: BlobReference): Promise<{ token: string; accessorId: string }> {
  const answer = await user.chat.send_message({ chat_id: chatId, text: "", blob: [referenceToCandid(reference)], name: [], preview: [] });
  assert.ok("Ok" in answer, `the chat says ${Object.keys(answer)}`);
  return tokenFor(user, chatId);
}

async function bytesOf(blob: Blob): Promise<Uint8Array> {
  return new Uint8Array(await blob.arrayBuffer());
}

/**
 * What the gateway serves at a URL, having verified it. Not every system resolves names below `localhost`.
 */
function served(url: string): Promise<{ status: number | undefined; bytes: Buffer }> {
  const { pathname, search, searchParams, port } = new URL(url);
  const host = `${searchParams.get("canisterId")}.localhost:${port}`;
  return new Promise((resolve, reject) => {
    const asking = request({ host: "127.0.0.1", port, path: pathname + search, headers: { host } }, async (answer) => {
      const pieces: Buffer[] = [];
      for await (const piece of answer) pieces.push(piece);
      resolve({ status: answer.statusCode, bytes: Buffer.concat(pieces) });
    });
    asking.on("error", reject).end();
  });
}

for (const size of [0, 1, 2 * MB - 1, 2 * MB, 2 * MB + 1, 9 * MB]) {
  test(`${size} bytes go up and come back, by call and by URL`, async () => {
    const { user, chat, accessorId } = await network.userWithChat();
    const storage = await user.storage();
    const bytes = fresh(size);
    const upload = storage.upload(new File([bytes], "a file.png", { type: "image/png" }), { accessorIds: [accessorId] });
    const reference = await upload.done;
    assert.equal(reference.blobId, sha256(bytes));
    assert.deepEqual([reference.size, reference.mimeType, upload.state], [size, "image/png", "done"]);
    const { token } = await send(user, chat.chat_id, reference);

    const blob = await storage.download(reference, { accessorId, token });
    assert.equal(blob.type, "image/png");
    assert.ok(Buffer.from(await bytesOf(blob)).equals(bytes));

    const answer = await served(storage.url(reference, accessorId, token));
    assert.equal(answer.status, 200);
    assert.equal(sha256(answer.bytes), reference.blobId);
    // The next one needs no token: the hash is in the cache.
    const again = await storage.download(reference, { accessorId, token: () => assert.fail("asked for a token") });
    assert.equal(again.size, size);
  });
}

test("every kind of data can be uploaded", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const dir = await mkdtemp(join(tmpdir(), "openstorage-journey-"));
  const bytes = fresh(3 * MB);
  const path = join(dir, "file");
  await writeFile(path, bytes);
  const options = { accessorIds: [accessorId] };
  const uploads = [
    storage.upload(new Blob([bytes]), options),
    storage.upload(bytes, options),
    storage.upload(new Blob([bytes]).stream(), { ...options, size: bytes.length }),
    storage.upload(await fileSource(path), options),
  ];
  for (const { done } of uploads) assert.equal((await done).blobId, sha256(bytes));
  await rm(dir, { recursive: true });
});

test("progress goes through its phases and ends at the total", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const heard: Progress[] = [];
  const upload = storage.upload(fresh(11 * MB), { accessorIds: [accessorId], onProgress: (progress) => heard.push(progress) });
  const seen: Progress[] = [];
  for await (const progress of upload) seen.push(progress);
  await upload.done;
  assert.deepEqual([...new Set(heard.map(({ phase }) => phase))].slice(0, 2), ["hashing", "uploading"]);
  for (const list of [heard, seen]) {
    assert.deepEqual(list.at(-1), { ...list.at(-1), phase: "uploading", bytesDone: 11 * MB, bytesTotal: 11 * MB });
  }
  const up = heard.filter(({ phase }) => phase === "uploading");
  assert.ok(up.some(({ bytesPerSecond }) => bytesPerSecond > 0));
  assert.ok(up.every(({ bytesDone }, i) => i === 0 || bytesDone >= up[i - 1]!.bytesDone));
});

test("a second uploader of a large blob sends at most 24 chunks of it, and the one that it is asked with", async () => {
  const first = await network.userWithChat();
  const bytes = fresh(60 * MB);
  await (await first.user.storage()).upload(bytes, { accessorIds: [first.accessorId] }).done;
  const second = await network.userWithChat();
  const storage = await second.user.storage();
  const estimate = await eventually("the index knows the blob", async () => {
    const estimate = await storage.estimate(bytes);
    return estimate.stored ? estimate : undefined;
  });
  assert.deepEqual([estimate.blobId, estimate.bytesToSend, estimate.cyclesPerYear], [sha256(bytes), 48 * MB, 0]);
  let sent = 0;
  const counted = countPushes(second.user, (bytes) => (sent += bytes));
  await (await counted).upload(bytes, { accessorIds: [second.accessorId] }).done;
  assert.ok(sent <= 50 * MB + 25_000, `${sent} bytes were sent`);
});

/** The user's storage, on an agent that tells of every push. */
async function countPushes(user: User, tell: (argBytes: number) => void): Promise<OpenStorage> {
  const update = user.agent.update.bind(user.agent);
  user.agent.update = (canister, fields, polling) => {
    if (fields.methodName === "push_chunk") tell(fields.arg.byteLength);
    return update(canister, fields, polling);
  };
  return user.storage();
}

test("a paused upload sends nothing, and goes on", async () => {
  const { user, accessorId } = await network.userWithChat();
  let pushes = 0;
  const storage = await countPushes(user, () => pushes++);
  const upload = storage.upload(fresh(40 * MB), { accessorIds: [accessorId], onProgress: ({ phase, bytesDone }) => {
    if (phase === "uploading" && bytesDone >= 4 * MB && pushes < 12) upload.pause();
  } });
  await eventually("it is paused", async () => (upload.state === "paused" ? true : undefined));
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = pushes;
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(pushes, before);
  assert.ok(before < 20, `${before} chunks`);
  pushes = 100;
  upload.resume();
  await upload.done;
});

test("an upload whose page was closed goes on from another, sending only what is missing", async () => {
  const { user, accessorId } = await network.userWithChat();
  const dir = await mkdtemp(join(tmpdir(), "openstorage-resume-"));
  const bytes = fresh(30 * MB);
  let pushes = 0;
  const controller = new AbortController();
  const first = await countPushes(user, () => {
    if (++pushes === 8) controller.abort();
  });
  void first;
  const store = () => new FolderResumeStore(dir);
  const before = await user.storage({ resumeStore: store() });
  const upload = before.upload(new File([bytes], "film.mp4"), { accessorIds: [accessorId], signal: controller.signal });
  await assert.rejects(upload.done, { name: "AbortError" });
  assert.equal(upload.state, "aborted");

  const later = await user.storage({ resumeStore: store() });
  const [unfinished] = await later.unfinishedUploads();
  assert.deepEqual([unfinished?.blobId, unfinished?.name, unfinished?.size], [sha256(bytes), "film.mp4", 30 * MB]);
  assert.ok(unfinished!.bytesDone >= 2 * MB && unfinished!.bytesDone < 30 * MB, String(unfinished!.bytesDone));
  pushes = 100;
  const reference = await later.upload(new File([bytes], "film.mp4"), { accessorIds: [accessorId] }).done;
  assert.equal(reference.blobId, sha256(bytes));
  const missing = (30 * MB - unfinished!.bytesDone) / (2 * MB);
  assert.ok(pushes - 100 <= missing, `${pushes - 100} chunks for ${missing}`);
  assert.deepEqual(await later.unfinishedUploads(), []);
  await rm(dir, { recursive: true });
});

test("abort gives the bytes and the allowance back", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const bytes = fresh(30 * MB);
  const upload = storage.upload(bytes, { accessorIds: [accessorId], onProgress: ({ phase, bytesDone }) => {
    if (phase === "uploading" && bytesDone >= 4 * MB) void upload.abort();
  } });
  await assert.rejects(upload.done, { name: "AbortError" });
  await upload.abort();
  await eventually("nothing is left", async () => ((await storage.unfinishedUploads()).length === 0 ? true : undefined));
  const reference = await storage.upload(bytes, { accessorIds: [accessorId] }).done;
  assert.equal(reference.size, 30 * MB);
});

test("an abort in any phase ends the upload, gives back what was reserved, and does not stand in the way", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const bytes = fresh(6 * MB);
  const phases = ["at once", "hashing", "uploading", "verifying"];
  for (const [i, phase] of phases.entries()) {
    const data = bytes.slice(i);
    const upload = storage.upload(data, { accessorIds: [accessorId], onProgress: (progress) => void (progress.phase === phase && upload.abort()) });
    if (phase === "at once") void upload.abort();
    // What is being verified may be stored all the same.
    const end = await upload.done.then((reference) => reference.blobId, (error: Error) => error.name);
    assert.ok(end === "AbortError" || (phase === "verifying" && end === sha256(data)), `${phase}: ${end}`);
    await upload.abort();
    assert.deepEqual(await storage.unfinishedUploads(), [], phase);
    assert.equal((await storage.upload(data, { accessorIds: [accessorId] }).done).blobId, sha256(data), phase);
  }
  const total = phases.length * 6 * MB - 6;
  await eventually("no more is used than is stored", async () => ((await storage.allowance()).bytesUsed === total ? true : undefined));
  // What was reserved is free again: all of it can be used.
  await network.setLimit(user, total + 3 * MB);
  await storage.upload(fresh(3 * MB), { accessorIds: [accessorId] }).done;
});

test("hundred files at once, with one pace between them", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const files = Array.from({ length: 100 }, (_, i) => fresh(1_100 + i));
  const references = await Promise.all(files.map((bytes) => storage.upload(bytes, { accessorIds: [accessorId] }).done));
  assert.deepEqual(references.map(({ blobId }) => blobId), files.map(sha256));
  const { bytesUsed } = await eventually("the index has heard of all", async () => {
    const allowance = await storage.allowance();
    return allowance.bytesUsed >= 114_950 ? allowance : undefined;
  });
  assert.equal(bytesUsed, 114_950);
});

test("an exhausted allowance says how much there is, is used, and what to do", async () => {
  const { user, accessorId } = await network.userWithChat();
  await network.setLimit(user, 5 * MB);
  const storage = await user.storage();
  await storage.upload(fresh(3 * MB), { accessorIds: [accessorId] }).done;
  await assert.rejects(storage.upload(fresh(4 * MB), { accessorIds: [accessorId] }).done, (error: Error) => {
    failure("AllowanceExceeded", { byteLimit: 5 * MB, bytesUsed: 3 * MB, bytesReserved: 0, leasedElsewhere: 0 })(error);
    assert.match(error.message, /4\.0 MB.*5\.0 MB.*3\.0 MB.*Delete something/);
    return true;
  });
  const alone = failure("AllowanceExceeded", { byteLimit: 5 * MB });
  await assert.rejects(storage.upload(fresh(6 * MB), { accessorIds: [accessorId] }).done, alone);
});

test("nobody uploads who is not registered", async () => {
  const { accessorId } = await network.userWithChat();
  const stranger = await network.stranger();
  const storage = await stranger.storage();
  for (const size of [10, 3 * MB]) {
    await assert.rejects(storage.upload(fresh(size), { accessorIds: [accessorId] }).done, failure("NotRegistered", {}));
  }
});

test("a token opens what it was issued for, to whom it was issued", async () => {
  const { user, chat, accessorId } = await network.userWithChat();
  const storage = await user.storage({ cache: false });
  const reference = await storage.upload(fresh(1_000), { accessorIds: [accessorId] }).done;
  const { token } = await send(user, chat.chat_id, reference);
  const other = await network.userWithChat();
  const elsewhere = { accessorId: other.accessorId, token };
  const refused = (problem: string) => failure("TokenRefused", { problem });
  await assert.rejects(storage.download(reference, elsewhere), refused("NotAuthentic"));
  await assert.rejects(storage.download(reference, { accessorId, token: "AAAA" }), refused("Malformed"));
  const foreign = await other.user.storage({ cache: false });
  await assert.rejects(foreign.download(reference, { accessorId, token }), failure("NotAuthorized", {}));
  const nothing = { ...reference, blobId: sha256(fresh(5)) as typeof reference.blobId };
  await assert.rejects(storage.download(nothing, { accessorId, token }), failure("NotFound", { blobId: nothing.blobId }));
});

test("ranges, streams and files", async () => {
  const { user, chat, accessorId } = await network.userWithChat();
  const storage = await user.storage({ cache: false });
  const bytes = fresh(9 * MB);
  const reference = await storage.upload(bytes, { accessorIds: [accessorId] }).done;
  const { token } = await send(user, chat.chat_id, reference);
  const options = { accessorId, token };
  for (const [start, end] of [[0, 0], [0, 1], [1_999_999, 2_000_001], [3 * MB, 9 * MB], [8_999_999, 9 * MB]] as const) {
    const range = await storage.readRange(reference, { start, end }, options);
    assert.ok(Buffer.from(range).equals(bytes.subarray(start, end)), `${start} to ${end}`);
  }
  await assert.rejects(storage.readRange(reference, { start: 0, end: 9 * MB + 1 }, options), { code: "InvalidRange" });
  const pieces: Uint8Array[] = [];
  await storage.download(reference, { ...options, to: new WritableStream({ write: (piece) => void pieces.push(piece) }) });
  assert.ok(Buffer.concat(pieces).equals(bytes));
  const dir = await mkdtemp(join(tmpdir(), "openstorage-file-"));
  const path = join(dir, "out");
  await downloadToFile(storage, reference, path, options);
  assert.ok((await readFile(path)).equals(bytes));
  const wrong = { ...reference, size: 8 * MB };
  await assert.rejects(downloadToFile(storage, wrong, join(dir, "wrong"), options), { code: "WrongBytes" });
  assert.deepEqual(await import("node:fs/promises").then(({ readdir }) => readdir(dir)), ["out"]);
  await rm(dir, { recursive: true });
});

test("an encrypted file is unreadable on the way and back as it was, in ranges too", async () => {
  const { user, chat, accessorId } = await network.userWithChat();
  const storage = await user.storage();
  const bytes = pattern(3 * MB);
  const key = rawKey(crypto.getRandomValues(new Uint8Array(32)));
  const word = passphrase("open sesame", { iterations: 1_000 });
  const file = new File([bytes], "diary.txt", { type: "text/plain" });
  const reference = await storage.upload(file, { accessorIds: [accessorId], encryptFor: [key, word] }).done;
  assert.equal(reference.mimeType, "application/octet-stream");
  const { token } = await send(user, chat.chat_id, reference);
  const sealed = await bytesOf(await storage.download(reference, { accessorId, token }));
  assert.ok(Buffer.from(sealed).indexOf(Buffer.from(bytes.subarray(0, 64))) < 0);
  assert.ok(Buffer.from(sealed).indexOf("diary") < 0);
  for (const cache of [false, true]) {
    for (const decryptWith of [key, word]) {
      const options = { accessorId, token, decryptWith, cache };
      const blob = await storage.download(reference, options);
      assert.equal(blob.type, "text/plain");
      assert.ok(Buffer.from(await bytesOf(blob)).equals(bytes));
      const range = await storage.readRange(reference, { start: 1_999_990, end: 2_000_010 }, options);
      assert.ok(Buffer.from(range).equals(bytes.subarray(1_999_990, 2_000_010)));
    }
  }
  const stranger = rawKey(new Uint8Array(32));
  await assert.rejects(storage.download(reference, { accessorId, token, decryptWith: stranger }), { code: "WrongKey" });
});

test("forwarded to a second chat, deleted from the first", async () => {
  const { user, chat, accessorId } = await network.userWithChat();
  const storage = await user.storage({ cache: false });
  const reference = await storage.upload(fresh(5_000), { accessorIds: [accessorId] }).done;
  const { token } = await send(user, chat.chat_id, reference);
  const other = await user.chat.create_chat({ name: "second" });
  assert.ok("Ok" in other);
  const there = other.Ok.accessor_id.toText();
  const forwarded = await storage.forward(reference, { from: accessorId, token, accessorIds: [there] });
  assert.deepEqual(forwarded, reference);
  const second = await send(user, other.Ok.chat_id, forwarded);
  await storage.delete(reference, { accessorId });
  await storage.delete(reference, { accessorId });
  await assert.rejects(storage.download(reference, { accessorId, token }), { code: "NotFound" });
  assert.equal((await storage.download(forwarded, { accessorId: there, token: second.token })).size, 5_000);
});

test("the cache is of one principal and can be cleared", async () => {
  const { user, chat, accessorId } = await network.userWithChat();
  const cache = new MemoryCacheStore();
  const storage = await user.storage({ cache });
  const reference = await storage.upload(fresh(5_000), { accessorIds: [accessorId] }).done;
  const { token } = await send(user, chat.chat_id, reference);
  assert.equal(await storage.cached(reference), undefined);
  await storage.download(reference, { accessorId, token });
  assert.equal((await storage.cached(reference))?.size, 5_000);
  const other = await (await network.stranger()).storage({ cache });
  assert.equal(await other.cached(reference), undefined);
  await storage.clearCache();
  assert.equal(await storage.cached(reference), undefined);
});

test("what cannot be right is refused before anything is sent", async () => {
  const { user, accessorId } = await network.userWithChat();
  const storage = await user.storage({ resumeStore: new MemoryResumeStore() });
  const bytes = fresh(1);
  const good = { accessorIds: [accessorId] };
  const cases: [object, string][] = [
    [{ accessorIds: [] }, "InvalidAccessors"],
    [{ accessorIds: ["2vxsx-fae"] }, "InvalidAccessors"],
    [{ accessorIds: ["nobody"] }, "InvalidPrincipal"],
    [{ accessorIds: Array(33).fill(accessorId) }, "InvalidAccessors"],
    [{ ...good, mimeType: "image" }, "InvalidMimeType"],
    [{ ...good, mimeType: "a b/png" }, "InvalidMimeType"],
    [{ ...good, name: "字".repeat(342) }, "InvalidName"],
  ];
  for (const [options, code] of cases) {
    assert.throws(() => storage.upload(bytes, options as typeof good), { code }, JSON.stringify(options));
  }
  assert.throws(() => storage.upload(new Blob([bytes]).stream(), good), failure("InvalidOption", { option: "size" }));
  assert.throws(() => storage.upload(5 as unknown as Blob, good), failure("InvalidOption", { option: "data" }));
});
