/** The library over a network that cuts, delays, throttles and stalls. */

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { HttpAgent } from "@icp-sdk/core/agent";
import { CallError, OpenStorage, referenceToCandid } from "@openstorage/client";

import { eventually, Network, tokenFor } from "./network.js";
import { Proxy } from "./proxy.js";
import { pattern, sha256 } from "./support.js";

const network = await Network.start();
after(() => network.stop());

const MB = 1_000_000;

/** In the subnet's range, and never created. */
const NOBODY = "3rfg5-iiaaa-aaaaa-babia-cai";

test("connections that are cut at random lose nothing", async (t) => {
  const { user, accessorId } = await network.userWithChat();
  const proxy = await Proxy.to(network.url);
  t.after(() => proxy.stop());
  const storage = await user.storage({ host: proxy.url });
  proxy.faults = { dropRate: 0.4 };
  const bytes = pattern(20 * MB);
  const reference = await storage.upload(bytes, { accessorIds: [accessorId] }).done;
  assert.equal(reference.blobId, sha256(bytes));
  assert.ok(proxy.drops > 0, "nothing was cut");
  t.diagnostic(`${proxy.drops} connections were cut`);
});

test("a slow line is not crowded: every chunk goes up about once", async (t) => {
  const { user, accessorId } = await network.userWithChat();
  const proxy = await Proxy.to(network.url);
  t.after(() => proxy.stop());
  const storage = await user.storage({ host: proxy.url });
  proxy.faults = { bytesPerSecond: 4 * MB, delayMs: 20 };
  const before = proxy.bytesUp;
  const bytes = new Uint8Array(16 * MB).map((_, i) => (i * 7) % 253);
  await storage.upload(bytes, { accessorIds: [accessorId] }).done;
  const sent = proxy.bytesUp - before;
  assert.ok(sent < 16 * MB * 1.2, `${sent} bytes`);
});

test("a network that comes back is gone on with", async (t) => {
  const { user, accessorId } = await network.userWithChat();
  const proxy = await Proxy.to(network.url);
  t.after(() => proxy.stop());
  const storage = await user.storage({ host: proxy.url });
  const bytes = new Uint8Array(20 * MB).map((_, i) => (i * 11) % 253);
  let cut = false;
  const upload = storage.upload(bytes, {
    accessorIds: [accessorId],
    onProgress: ({ phase, bytesDone }) => {
      if (cut || phase !== "uploading" || bytesDone < 4 * MB) return;
      cut = true;
      proxy.faults = { stalled: true };
      proxy.cut();
      setTimeout(() => {
        proxy.faults = {};
        proxy.cut();
      }, 3_000);
    },
  });
  assert.equal((await upload.done).blobId, sha256(bytes));
});

test("a network that stays away is given up on, with a sentence", async (t) => {
  const { user, accessorId } = await network.userWithChat();
  const proxy = await Proxy.to(network.url);
  const agent = await HttpAgent.create({ host: proxy.url, identity: user.identity, shouldFetchRootKey: true, retryTimes: 0 });
  await proxy.stop();
  t.after(() => proxy.stop());
  const storage = new OpenStorage({ agent, indexCanisterId: network.index, cache: false, patienceMs: 1_000 });
  const upload = storage.upload(pattern(10), { accessorIds: [accessorId] });
  await assert.rejects(upload.done, (error: Error) => {
    assert.match(error.message, /gave up after 1 s.*Check the connection/);
    assert.ok(error.cause instanceof CallError && error.cause.kind === "transient", String(error.cause));
    return (error as { code?: string }).code === "GaveUp";
  });
});

test("an abort ends an upload that hangs at once", async (t) => {
  const { user, accessorId } = await network.userWithChat();
  const proxy = await Proxy.to(network.url);
  t.after(() => proxy.stop());
  const storage = await user.storage({ host: proxy.url });
  const controller = new AbortController();
  proxy.faults = { stalled: true };
  const upload = storage.upload(pattern(3 * MB), { accessorIds: [accessorId], signal: controller.signal });
  await eventually("it is hashed", async () => upload.blobId);
  controller.abort(new Error("closed"));
  await assert.rejects(upload.done, /closed/);
});

test("a download over a bad line is the same bytes", async (t) => {
  const { user, chat, accessorId } = await network.userWithChat();
  const proxy = await Proxy.to(network.url, 5);
  t.after(() => proxy.stop());
  const bytes = new Uint8Array(12 * MB).map((_, i) => (i * 13) % 253);
  const reference = await (await user.storage()).upload(bytes, { accessorIds: [accessorId] }).done;
  await user.chat.send_message({ chat_id: chat.chat_id, text: "", blob: [referenceToCandid(reference)], name: [], preview: [] });
  const { token } = await tokenFor(user, chat.chat_id);
  const storage = await user.storage({ host: proxy.url, cache: false });
  setTimeout(() => proxy.cut(), 100);
  const blob = await storage.download(reference, { accessorId, token });
  assert.equal(sha256(new Uint8Array(await blob.arrayBuffer())), reference.blobId);
});

test("a local network without its root key says how to fetch it", async () => {
  const { user, accessorId } = await network.userWithChat();
  const agent = await HttpAgent.create({ host: network.url, identity: user.identity });
  const storage = new OpenStorage({ agent, indexCanisterId: network.index, cache: false, patienceMs: 2_000 });
  await assert.rejects(storage.upload(pattern(10), { accessorIds: [accessorId] }).done, (error: Error) => {
    assert.match(error.message, /shouldFetchRootKey/);
    return (error as { code?: string }).code === "CallFailed";
  });
});

test("a canister that is no index, or is not there, is named, and what to look at", async () => {
  const { user, accessorId } = await network.userWithChat();
  for (const indexCanisterId of [network.chat, NOBODY]) {
    const storage = new OpenStorage({ agent: user.agent, indexCanisterId, cache: false, patienceMs: 1_000 });
    await assert.rejects(storage.upload(pattern(10), { accessorIds: [accessorId] }).done, (error: Error & { code?: string; fields?: object }) => {
      assert.equal(error.code, "CallFailed");
      assert.equal((error.fields as { canister?: string }).canister, indexCanisterId);
      assert.match(error.message, /Is [a-z0-9-]+ a canister of OpenStorage, on this network\? Check the ids/);
      return true;
    });
  }
});
