/** What canisters that err or lie can do to the library: end it with an error, and nothing else. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { RejectError, type RequestId, UncertifiedRejectUpdateErrorCode } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import { Principal } from "@icp-sdk/core/principal";
import {
  type AgentLike,
  agentTransport,
  type BlobReference,
  CallError,
  isOpenStorageError,
  MemoryCacheStore,
  MemoryResumeStore,
  OpenStorage,
  parseBlobId,
  referenceToCandid,
  type Transport,
} from "@openstorage/client";
import { idlFactory as bucketFactory } from "@openstorage/client/candid/bucket";
import { idlFactory as indexFactory } from "@openstorage/client/candid/index";

import { failure, pattern, sha256 } from "./support.js";

const INDEX = "ryjl3-tyaaa-aaaaa-aaaba-cai";
const BUCKETS = ["r7inp-6aaaa-aaaaa-aaabq-cai", "rrkah-fqaaa-aaaaa-aaaaq-cai"];
const USER = Principal.selfAuthenticating(new Uint8Array(32));
const ACCESSOR = "rkp4c-7iaaa-aaaaa-aaaca-cai";
const MB = 1_000_000;

type Answer = (args: Record<string, unknown>, call: number, canister: string) => unknown;

/** Canisters that answer by script. */
function scripted(answers: Record<string, Answer>): Transport & { calls: Record<string, number> } {
  const calls: Record<string, number> = {};
  const methods = new Map([...bucketFactory({ IDL })._fields, ...indexFactory({ IDL })._fields]);
  const call = async (canister: string, method: string, arg: Uint8Array) => {
    const { argTypes, retTypes } = methods.get(method)!;
    const [args] = IDL.decode(argTypes, arg) as [Record<string, unknown>];
    calls[method] = (calls[method] ?? 0) + 1;
    const answer = answers[method];
    if (!answer) throw new CallError("final", `no ${method}`);
    await new Promise((resolve) => setImmediate(resolve));
    return IDL.encode(retTypes, [answer(args, calls[method]!, canister)]);
  };
  return { calls, principal: async () => USER, query: call, update: call };
}

const allocated = (bucket: string, stored = false) => ({ Ok: { bucket: Principal.fromText(bucket), chunk_bytes: 2_000_000n, stored } });
const here = { allocated_bucket: () => allocated(BUCKETS[0]!), upload_status: () => ({ Err: { NotFound: null } }) };
const open = { Ok: { state: { Open: null }, missing_count: 1 } };
const stored = { Ok: { state: { Stored: null }, missing_count: 0 } };

function storageOn(transport: Transport, patienceMs = 400): OpenStorage {
  return new OpenStorage({ transport, indexCanisterId: INDEX, resumeStore: new MemoryResumeStore(), cache: new MemoryCacheStore(), patienceMs });
}

const upload = (transport: Transport, size = 6 * MB) => storageOn(transport).upload(pattern(size), { accessorIds: [ACCESSOR] }).done;

test("a bucket that always misses other chunks is given up on", async () => {
  const status = (_: unknown, call: number) => {
    const missing = call % 2 ? [{ start: 0, end: 3 }] : [{ start: 1, end: 2 }];
    return { Ok: { state: { Open: null }, size: BigInt(6 * MB), missing } };
  };
  await assert.rejects(upload(scripted({ ...here, push_chunk: () => open, upload_status: status })), { code: "GaveUp" });
});

test("a bucket that always asks for chunks is given up on", async () => {
  const push_chunk = () => ({ Err: { ChunkNeeded: { indexes: [0, 1, 2] } } });
  await assert.rejects(upload(scripted({ ...here, push_chunk })), { code: "GaveUp" });
});

test("a bucket that verifies for ever is given up on", async () => {
  const verifying = { Ok: { state: { Verifying: null }, missing_count: 0 } };
  const upload_status = () => ({ Ok: { state: { Verifying: null }, size: BigInt(6 * MB), missing: [] } });
  await assert.rejects(upload(scripted({ ...here, push_chunk: () => verifying, upload_status })), { code: "GaveUp" });
});

test("a bucket that never has time is given up on, however long it asks for", async () => {
  const push_chunk = () => ({ Err: { Retry: { ms: 2n ** 64n - 1n } } });
  await assert.rejects(upload(scripted({ ...here, push_chunk })), { code: "GaveUp" });
});

test("a bucket that wants chunks which the blob has not is told from one that works", async () => {
  const push_chunk = () => ({ Err: { ChunkNeeded: { indexes: [7] } } });
  await assert.rejects(upload(scripted({ ...here, push_chunk })), { code: "InvalidChunkIndex" });
  const status = () => ({ Ok: { state: { Open: null }, size: 1n, missing: [{ start: 0, end: 4_000_000_000 }] } });
  await assert.rejects(upload(scripted({ ...here, push_chunk: () => open, upload_status: status })), { code: "InvalidRange" });
});

test("buckets that are all full are excluded one by one, and then it ends", async () => {
  const asked: number[] = [];
  const transport = scripted({
    ...here,
    allocated_bucket: ({ exclude }) => {
      asked.push((exclude as unknown[]).length);
      return (exclude as unknown[]).length < 2 ? allocated(BUCKETS[(exclude as unknown[]).length]!) : { Err: { NoActiveBucket: null } };
    },
    push_chunk: () => ({ Err: { BucketFull: { bytes_free: 0n, bytes_arrived: 0n } } }),
  });
  await assert.rejects(upload(transport), failure("NoBucketWithRoom", { excluded: 2 }));
  assert.deepEqual(asked, [0, 1, 2]);
  // One that goes on naming the same bucket is not followed for ever either.
  const same = scripted({ ...here, push_chunk: () => ({ Err: { BucketFull: { bytes_free: 0n, bytes_arrived: 0n } } }) });
  await assert.rejects(upload(same), { code: "NoBucketWithRoom" });
});

test("a bucket that fills up in the middle drops what it has before another one is asked", async () => {
  const said: string[] = [];
  const transport = scripted({
    allocated_bucket: ({ exclude }) => allocated(BUCKETS[(exclude as unknown[]).length]!),
    upload_status: () => ({ Err: { NotFound: null } }),
    abort_upload: (_, __, canister) => (said.push(`abort ${canister}`), { Ok: null }),
    push_chunk: ({ chunk_index }, _, canister) => {
      if (canister === BUCKETS[1]) return said.push("stored"), stored;
      return chunk_index === 0 ? open : { Err: { BucketFull: { bytes_free: 0n, bytes_arrived: 2_000_000n } } };
    },
  });
  await upload(transport);
  assert.deepEqual(said.slice(0, 2), [`abort ${BUCKETS[0]}`, "stored"]);
});

test("a list of unfinished uploads says which bucket is missing in it", async () => {
  const [good, bad] = BUCKETS.map((id) => Principal.fromText(id));
  const row = { blob_id: new Uint8Array(32), size: 9n, bytes_arrived: 4n, bytes_reserved: 9n, state: { Open: null }, touched_ms: 1n, expires_ms: 2n };
  const transport = scripted({
    my_buckets: () => [good, bad],
    my_uploads: (_, __, canister) => {
      if (canister === BUCKETS[1]) throw new CallError("final", "it is frozen");
      assert.equal(canister, BUCKETS[0]);
      return [row];
    },
  });
  const missing: string[] = [];
  const found = await storageOn(transport).uploads({ onUnreachable: (id) => missing.push(id) });
  const blobId = "0".repeat(64);
  assert.deepEqual(found, [{ blobId, bucket: BUCKETS[0], size: 9, bytesDone: 4, bytesReserved: 9, touchedMs: 1, expiresMs: 2 }]);
  assert.deepEqual(missing, [BUCKETS[1]]);
  await assert.rejects(storageOn(transport).uploads(), { code: "CallFailed" });
});

test("a bucket that knows nobody is asked to register once for all chunks", async () => {
  let known = false;
  const transport = scripted({
    ...here,
    ensure_registered: () => {
      known = true;
      return { Ok: null };
    },
    push_chunk: () => (known ? stored : { Err: { NotRegistered: null } }),
  });
  const storage = storageOn(transport);
  await Promise.all([1, 2, 3, 4].map((n) => storage.upload(pattern(n), { accessorIds: [ACCESSOR] }).done));
  assert.equal(transport.calls["ensure_registered"], 1);
  const never = scripted({ ...here, ensure_registered: () => ({ Ok: null }), push_chunk: () => ({ Err: { NotRegistered: null } }) });
  await assert.rejects(upload(never), { code: "NotRegistered" });
  assert.equal(never.calls["ensure_registered"], 1);
});

/** As an agent meets a bucket that does not take the message of a caller whom it does not know. */
function turnedAway(): Error {
  const code = new UncertifiedRejectUpdateErrorCode(new Uint8Array(32) as RequestId, 4, "Canister rejected the message", "IC0406");
  return RejectError.fromCode(code);
}

/** Scripted canisters behind an agent, that take longer messages only once the caller has registered. */
function strict(answers: Record<string, Answer>, bytesMax = 4_096): { agent: AgentLike; calls: Record<string, number> } {
  let isKnown = false;
  const ensure_registered: Answer = () => {
    isKnown = true;
    return { Ok: null };
  };
  const transport = scripted({ ...answers, ensure_registered });
  const call = async (canister: Principal | string, methodName: string, arg: Uint8Array) => {
    if (arg.byteLength > bytesMax && !isKnown) throw turnedAway();
    return transport.update(String(canister), methodName, arg);
  };
  const agent = {
    getPrincipal: async () => USER,
    query: async (canister: Principal | string, { methodName, arg }: { methodName: string; arg: Uint8Array }) => ({ reply: { arg: await call(canister, methodName, arg) } }),
    update: async (canister: Principal | string, { methodName, arg }: { methodName: string; arg: Uint8Array }) => ({ reply: await call(canister, methodName, arg) }),
  };
  return { agent: agent as unknown as AgentLike, calls: transport.calls };
}

test("a bucket that turns large messages of strangers away is asked to look the caller up, and takes them", async () => {
  for (const [size, chunks] of [[5_000, 1], [3 * MB, 2]] as const) {
    const { agent, calls } = strict({ ...here, push_chunk: () => stored });
    await upload(agentTransport(agent), size);
    assert.equal(calls["ensure_registered"], 1);
    assert.ok(calls["push_chunk"]! <= chunks, `${calls["push_chunk"]} chunks`);
  }
  // The longest call that is not a chunk is shorter; nobody says that it stays so.
  const { agent, calls } = strict({ add_blob_reference: () => ({ Ok: referenceToCandid(reference) }) }, 100);
  await storageOn(agentTransport(agent)).forward(reference, { from: ACCESSOR, token: "t", accessorIds: [ACCESSOR] });
  assert.deepEqual([calls["ensure_registered"], calls["add_blob_reference"]], [1, 1]);
});

test("only what is retryable is tried again", async () => {
  for (const refused of ["ChunkConflict", "NotAuthorized"]) {
    const transport = scripted({ ...here, push_chunk: () => ({ Err: { [refused]: null } }) });
    await assert.rejects(upload(transport, 10), { code: refused });
    assert.equal(transport.calls["push_chunk"], 1);
  }
  const busy = scripted({ ...here, push_chunk: (_, call) => (call < 3 ? { Err: { StorageFull: null } } : stored) });
  await upload(busy, 10);
  assert.equal(busy.calls["push_chunk"], 3);
});

test("an upload that went wrong elsewhere stops the chunks beside it", async () => {
  const push_chunk: Answer = ({ chunk_index }) => (chunk_index === 5 ? { Err: { AccessorDeleted: { accessor_id: Principal.fromText(ACCESSOR) } } } : open);
  const transport = scripted({ ...here, push_chunk });
  await assert.rejects(upload(transport, 100 * MB), failure("AccessorDeleted", { accessorId: ACCESSOR }));
  assert.ok(transport.calls["push_chunk"]! < 20, `${transport.calls["push_chunk"]} chunks`);
});

/** A transport whose pushes are slow, and lost where `isLost` says so. */
function losing(transport: Transport, delayMs: number, isLost: (index: number) => boolean): Transport {
  return {
    ...transport,
    async update(canister, method, arg, signal) {
      if (method !== "push_chunk") return transport.update(canister, method, arg, signal);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      const [{ chunk_index }] = IDL.decode(bucketFactory({ IDL })._fields.find(([name]) => name === method)![1].argTypes, arg) as unknown as [{ chunk_index: number }];
      if (isLost(chunk_index)) throw new CallError("transient", "lost");
      return transport.update(canister, method, arg, signal);
    },
  };
}

test("a chunk that is lost after longer than patience lasts is sent again", async () => {
  let lost = 0;
  const transport = scripted({ ...here, push_chunk: () => stored });
  await upload(losing(transport, 500, () => lost++ === 0), 1 * MB);
  assert.equal(transport.calls["push_chunk"], 1);
});

test("a chunk may be lost for longer than patience lasts while others arrive", async () => {
  let arrived = 0;
  const isLost = (index: number) => index === 3 && arrived < 20;
  const push_chunk: Answer = () => (++arrived === 25 ? stored : open);
  const upload_status: Answer = () => (arrived >= 25 ? { Ok: { state: { Stored: null }, size: 50n * BigInt(MB), missing: [] } } : { Err: { NotFound: null } });
  await upload(losing(scripted({ ...here, push_chunk, upload_status }), 100, isLost), 50 * MB);
});

test("an upload that was paused for longer than patience lasts goes on", async () => {
  let lost = 0;
  const transport = losing(scripted({ ...here, push_chunk: () => stored }), 20, () => lost++ < 2);
  const paused = storageOn(transport).upload(pattern(1 * MB), { accessorIds: [ACCESSOR] });
  while (lost === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  paused.pause();
  await new Promise((resolve) => setTimeout(resolve, 700));
  paused.resume();
  await paused.done;
});

test("what cannot go on is given back to the bucket, and not offered again", async () => {
  const resumeStore = new MemoryResumeStore();
  const push_chunk: Answer = ({ chunk_index }) => (chunk_index === 0 ? open : { Err: { ChunkConflict: null } });
  const transport = scripted({ ...here, push_chunk, abort_upload: () => ({ Ok: null }) });
  const storage = new OpenStorage({ transport, indexCanisterId: INDEX, resumeStore, cache: false, patienceMs: 400 });
  await assert.rejects(storage.upload(pattern(6 * MB), { accessorIds: [ACCESSOR] }).done, { code: "ChunkConflict" });
  assert.equal(transport.calls["abort_upload"], 1);
  assert.deepEqual(await resumeStore.all(), []);
});

test("an upload that has failed gives back what it sent when it is aborted", async () => {
  const resumeStore = new MemoryResumeStore();
  const push_chunk: Answer = ({ chunk_index }) => (chunk_index === 0 ? open : { Err: { Retry: { ms: 1n } } });
  const transport = scripted({ ...here, push_chunk, abort_upload: () => ({ Ok: null }) });
  const storage = new OpenStorage({ transport, indexCanisterId: INDEX, resumeStore, cache: false, patienceMs: 400 });
  const failed = storage.upload(pattern(6 * MB), { accessorIds: [ACCESSOR] });
  await assert.rejects(failed.done, { code: "GaveUp" });
  assert.equal((await resumeStore.all()).length, 1);
  await failed.abort();
  assert.equal(transport.calls["abort_upload"], 1);
  assert.deepEqual([await resumeStore.all(), failed.state], [[], "failed"]);
});

test("resuming keeps to the bucket that has the chunks", async () => {
  const resumeStore = new MemoryResumeStore();
  const controller = new AbortController();
  const make = (answers: Record<string, Answer>) => {
    const transport = scripted(answers);
    return { transport, storage: new OpenStorage({ transport, indexCanisterId: INDEX, resumeStore, cache: false, patienceMs: 400 }) };
  };
  const first = make({ ...here, push_chunk: (_, call) => (call === 2 && controller.abort(), open) });
  await assert.rejects(first.storage.upload(pattern(6 * MB), { accessorIds: [ACCESSOR], signal: controller.signal }).done);
  const pushedTo = new Set<string>();
  const second = make({
    allocated_bucket: () => allocated(BUCKETS[1]!),
    upload_status: () => ({ Ok: { state: { Open: null }, size: BigInt(6 * MB), missing: [{ start: 2, end: 3 }] } }),
    push_chunk: (_, __, canister) => (pushedTo.add(canister), stored),
  });
  const { bucket } = await second.storage.upload(pattern(6 * MB), { accessorIds: [ACCESSOR] }).done;
  assert.deepEqual([bucket, [...pushedTo], second.transport.calls["push_chunk"]], [BUCKETS[0], [BUCKETS[0]], 1]);
  assert.deepEqual(await resumeStore.all(), []);
});

const bytes = pattern(5 * MB);
const reference: BlobReference = { blobId: parseBlobId(sha256(bytes)), bucket: BUCKETS[0]!, size: bytes.length, mimeType: "image/png" };
const chunk = (index: number, of = bytes) => ({ Ok: { size: BigInt(of.length), mime_type: "image/png", bytes: of.slice(index * 2 * MB, (index + 1) * 2 * MB) } });

test("other bytes than the blob's are found out, and not kept", async () => {
  const lies: Answer[] = [
    ({ chunk_index }) => {
      const answer = chunk(chunk_index as number);
      if (chunk_index === 1) answer.Ok.bytes[7]! ^= 1;
      return answer;
    },
    ({ chunk_index }) => chunk(chunk_index as number, pattern(4 * MB)),
    ({ chunk_index }) => chunk((chunk_index as number) ^ 1),
  ];
  for (const read_chunk of lies) {
    const storage = storageOn(scripted({ read_chunk }));
    await assert.rejects(storage.download(reference, { accessorId: ACCESSOR, token: "t" }), { code: "WrongBytes" });
    assert.equal(await storage.cached(reference), undefined);
  }
});

test("an expired token is replaced, once for all chunks that fail together", async () => {
  let asked = 0;
  const read_chunk: Answer = ({ chunk_index, token }) =>
    token === "fresh" ? chunk(chunk_index as number) : { Err: { InvalidToken: { Expired: null } } };
  const token = () => (asked++ ? "fresh" : "old");
  const blob = await storageOn(scripted({ read_chunk })).download(reference, { accessorId: ACCESSOR, token });
  assert.equal(blob.size, bytes.length);
  assert.equal(asked, 2);
  const refused = failure("TokenRefused", { problem: "Expired" });
  await assert.rejects(storageOn(scripted({ read_chunk })).download(reference, { accessorId: ACCESSOR, token: "old" }), refused);
  await assert.rejects(storageOn(scripted({ read_chunk }), 60_000).download(reference, { accessorId: ACCESSOR, token: () => "old" }), refused);
  let turn = 0;
  await assert.rejects(storageOn(scripted({ read_chunk }), 60_000).download(reference, { accessorId: ACCESSOR, token: () => `old ${turn++}` }), refused);
});

test("a bucket that learns of the issuer late is asked again", async () => {
  const read_chunk: Answer = ({ chunk_index }, call) => (call < 3 ? { Err: { InvalidToken: { UnknownIssuer: null } } } : chunk(chunk_index as number));
  await storageOn(scripted({ read_chunk })).download(reference, { accessorId: ACCESSOR, token: "t" });
});

test("a stream that stops taking bytes ends the download and its calls", async () => {
  const transport = scripted({ read_chunk: ({ chunk_index }) => chunk(chunk_index as number) });
  const to = new WritableStream<Uint8Array>({ write: () => Promise.reject(new Error("disk full")) });
  await assert.rejects(storageOn(transport).download(reference, { accessorId: ACCESSOR, token: "t", to }), /disk full/);
});

test("another interface than the one expected is named", async () => {
  const transport: Transport = { principal: async () => USER, query: async () => new Uint8Array([1, 2, 3]), update: async () => new Uint8Array() };
  await assert.rejects(upload(transport), failure("InterfaceMismatch", { canister: INDEX, method: "allocated_bucket" }));
});

test("what a program without types gets wrong is told by its name", async () => {
  const make = (options?: object) => new OpenStorage((options && { cache: false, resumeStore: new MemoryResumeStore(), ...options }) as never);
  assert.throws(() => make(), failure("InvalidOption", { option: "options" }));
  assert.throws(() => make({ transport: scripted({}) }), failure("InvalidPrincipal", { argument: "indexCanisterId" }));
  for (const agent of [undefined, Promise.resolve()]) {
    assert.throws(() => make({ agent, indexCanisterId: INDEX }), failure("InvalidOption", { option: "agent" }));
  }
  for (const option of ["patienceMs", "cacheBytesMax", "concurrencyMax"]) {
    assert.throws(() => make({ transport: scripted({}), indexCanisterId: INDEX, [option]: "many" }), failure("InvalidOption", { option }));
  }
  const storage = storageOn(scripted({ ...here, push_chunk: () => stored }));
  for (const accessorIds of [undefined, ACCESSOR, []]) {
    assert.throws(() => storage.upload(pattern(3), { accessorIds } as never), failure("InvalidAccessors", { max: 32 }));
  }
  for (const token of [undefined, () => undefined]) {
    await assert.rejects(storage.download(reference, { accessorId: ACCESSOR, token } as never), failure("InvalidToken", { max: 192 }));
  }
  // The bytes of a view are stored, whatever it counts.
  const words = new Uint16Array([1, 2, 3]);
  const { blobId } = await storage.upload(words, { accessorIds: [ACCESSOR] }).done;
  assert.equal(blobId, sha256(new Uint8Array(words.buffer)));
});

test("every argument that is left out is an error of the kind `argument`", async () => {
  const storage = storageOn(scripted({})) as unknown as Record<string, (...args: unknown[]) => unknown>;
  const good = { accessorId: ACCESSOR, token: "t" };
  const nothings: Record<string, unknown[][]> = {
    upload: [[], [pattern(1)], [undefined, { accessorIds: [ACCESSOR] }], [5, { accessorIds: [ACCESSOR] }], [{}, { accessorIds: [ACCESSOR] }], [pattern(1), null]],
    download: [[], [reference], [undefined, good], [{}, good], [{ ...reference, size: undefined }, good], [{ ...reference, bucket: 1 }, good], [reference, {}]],
    readRange: [[], [reference], [reference, undefined, good], [reference, {}, good], [reference, { start: 0, end: 1 }]],
    cached: [[], [{}]],
    url: [[], [reference], [reference, ACCESSOR], [reference, 7, "t"], [{}, ACCESSOR, "t"]],
    estimate: [[], [null], [{}]],
    forward: [[], [reference], [reference, {}], [reference, { from: ACCESSOR, accessorIds: [ACCESSOR] }], [undefined, { from: ACCESSOR, token: "t", accessorIds: [ACCESSOR] }]],
    delete: [[], [reference], [reference, {}], [undefined, good]],
    deleteAccessor: [[], [ACCESSOR]],
    discardUpload: [[], [{}], [{ bucket: BUCKETS[0] }]],
    events: [[{ pollMs: 0 }], [{ owner: 3 }]],
  };
  const functions: Record<string, unknown[][]> = {
    hashSource: [[], [5], [{}]],
    sourceOf: [[], ["text"], [{}]],
    sourceOfStream: [[], [new Blob([]).stream()], [{}, 5]],
    parseBlobId: [[], [5]],
    blobIdFromBytes: [[], [5]],
    referenceToCandid: [[], [{}]],
    blobUrl: [[], [{}], [{}, {}]],
    rawKey: [[], ["key"]],
    passphrase: [[], [5]],
    agentTransport: [[], [{}], [5]],
  };
  const library = (await import("@openstorage/client")) as unknown as typeof storage;
  for (const [from, cases] of [[storage, nothings], [library, functions]] as const) {
    for (const [name, lists] of Object.entries(cases)) {
      for (const args of lists) {
        const said = `${name}(${args.map((arg) => String(JSON.stringify(arg)).slice(0, 60))})`;
        const call = async () => {
          const made = from[name]!.apply(from, args) as { done?: unknown } | undefined;
          await (made?.done ?? made);
        };
        await assert.rejects(call, (error: Error & { kind?: string }) => {
          assert.ok(isOpenStorageError(error), `${said}: ${error}`);
          assert.equal(error.kind, "argument", `${said}: ${error.code}`);
          return true;
        }, said);
      }
    }
  }
});

test("iterating without awaiting done leaves no unhandled rejection", async () => {
  const handle = storageOn(scripted({})).upload(pattern(1), { accessorIds: [ACCESSOR] });
  const seen = async () => {
    for await (const _ of handle);
  };
  await assert.rejects(seen(), { code: "CallFailed" });
  assert.equal(handle.state, "failed");
});

test("costs follow the price list", async () => {
  const { costOf } = await import("@openstorage/client");
  const year = costOf(1_000_000_000, false);
  const trillions = (year.cyclesNow + year.cyclesPerYear) / 1e12;
  assert.ok(trillions > 5.7 && trillions < 6, `${trillions} T for a GB and a year`);
  assert.deepEqual(costOf(0, false).bytesToSend, 0);
  assert.equal(costOf(1_000_000_000, true).cyclesPerYear, 0);
});
