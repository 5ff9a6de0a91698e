/** The worker that hashes, in a thread of Node dressed as a browser's. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker as Thread } from "node:worker_threads";

import { HASH_WORKER_CODE } from "../src/generated/hash-worker-code.js";
import { platform } from "../src/platform/browser.js";
import { hashInWorker, NoWorker, setHashWorker } from "../src/platform/worker.js";
import { sourceOf } from "../src/source.js";
import { failure, pattern, sha256 } from "./support.js";

const SHIM = `
  const { parentPort } = require("node:worker_threads");
  globalThis.postMessage = (answer) => parentPort.postMessage(answer);
  parentPort.on("message", (data) => globalThis.onmessage({ data }));
`;

let alive = 0;

/** As much of a browser's worker as is used. */
function dressed(code: string): Worker {
  const thread = new Thread(SHIM + code, { eval: true });
  alive++;
  thread.on("exit", () => alive--);
  const worker = {
    onmessage: undefined as ((event: unknown) => void) | undefined,
    onerror: undefined as ((event: unknown) => void) | undefined,
    postMessage: (data: Blob) => thread.postMessage(data),
    terminate: () => void thread.terminate(),
  };
  thread.on("message", (data) => worker.onmessage?.({ data }));
  thread.on("error", ({ message }) => worker.onerror?.({ message, preventDefault() {} }));
  return worker as unknown as Worker;
}

const bytes = pattern(40_000_001);

test("a large file is hashed in a worker, with progress, and the worker ends", async () => {
  setHashWorker(() => dressed(HASH_WORKER_CODE));
  Object.assign(globalThis, { Worker: class {} });
  const seen: number[] = [];
  const id = await platform.hash(sourceOf(new Blob([bytes])), { onProgress: ({ bytesDone }) => seen.push(bytesDone) });
  assert.equal(id, sha256(bytes));
  assert.equal(seen.at(-1), bytes.length);
  assert.ok(seen.length > 5 && seen.every((done, i) => i === 0 || done >= seen[i - 1]!), seen.join());
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(alive, 0);
});

test("an abort ends the worker at once", async () => {
  setHashWorker(() => dressed(HASH_WORKER_CODE));
  const controller = new AbortController();
  const hashing = hashInWorker(new Blob([bytes]), "a blob", { signal: controller.signal, onProgress: () => controller.abort() });
  await assert.rejects(hashing, { name: "AbortError" });
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(alive, 0);
});

test("a file that cannot be read is named", async () => {
  setHashWorker(() => dressed('globalThis.onmessage = () => postMessage({ error: "NotReadableError" });'));
  const hashing = hashInWorker(new Blob([bytes]), "cat.png", {});
  await assert.rejects(hashing, failure("SourceUnreadable", { name: "cat.png" }));
});

test("where workers are forbidden the page hashes by itself", async () => {
  for (const make of [
    () => dressed('throw new Error("blocked")'),
    () => dressed('globalThis.onmessage = () => postMessage({ noHasher: "CompileError" });'),
    () => {
      throw new DOMException("blocked", "SecurityError");
    },
  ]) {
    setHashWorker(make);
    await assert.rejects(hashInWorker(new Blob([bytes]), "a blob", {}), NoWorker);
    assert.equal(await platform.hash(sourceOf(new Blob([bytes])), {}), sha256(bytes));
  }
});
