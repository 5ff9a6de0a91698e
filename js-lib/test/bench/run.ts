/**
 * Figures of the library in Node, on a local network:  npm run bench -- [--json] [--big BYTES] [--small FILES]
 *
 * | key | what | goal |
 * | --- | --- | --- |
 * | js_upload_vs_agent | time of a 100 MB upload (hash included) to that of the bare agent's best fixed concurrency (hash not included) | ≤ 1.3 |
 * | js_node_peak_mb | resident memory above idle while a 2 GB file goes up | ≤ 64 |
 * | js_hash_vs_fastest | rate of the page's hash to that of hash-wasm alone, bytes in memory | ≥ 0.8 |
 * | js_small_files_speedup | files of 1 kB: how many a second all at once (1,000) to one at a time (30), on a line where a call takes 0.5 s | ≥ 5 |
 * | js_bundle_gzip_kb | the library without @icp-sdk/core, minified, gzip | |
 */

import { execFile } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

import { Actor } from "@icp-sdk/core/agent";
import { Principal } from "@icp-sdk/core/principal";
import { type _SERVICE as Bucket, idlFactory } from "@openstorage/client/candid/bucket";
import { hashSource, sourceOf } from "@openstorage/client";
import { createSHA256 } from "hash-wasm";

import { hashInStream } from "../../src/hash.js";
import { platform } from "../../src/platform/node.js";
import { Network } from "../network.js";
import { Proxy } from "../proxy.js";
import { packageDir } from "../support.js";

const { values } = parseArgs({ options: { json: { type: "boolean", default: false }, big: { type: "string", default: "2000000000" }, small: { type: "string", default: "1000" } } });
const MB = 1_000_000;
const CHUNK = 2 * MB;
/** Files uploaded one at a time: enough for a rate, and done in a minute. */
const APART = 30;

const note = (text: string) => console.error(text);

function fresh(size: number): Uint8Array<ArrayBuffer> {
  return randomFillSync(new Uint8Array(size));
}

async function timeMs(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

async function best(rounds: number, work: () => Promise<number>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) least = Math.min(least, await work());
  return least;
}

/** The same calls as the library's, by hand: the first chunk, then so many at a time. */
async function bareUpload(network: Network, bytes: Uint8Array, user: Awaited<ReturnType<Network["userWithChat"]>>, concurrency: number): Promise<number> {
  const digest = createHash("sha256").update(bytes).digest();
  const { buckets } = await network.status();
  const bucket = Actor.createActor<Bucket>(idlFactory, { agent: user.user.agent, canisterId: buckets[0]!.bucket });
  const count = Math.ceil(bytes.byteLength / CHUNK);
  const push = async (index: number) => {
    const answer = await bucket.push_chunk({
      blob_id: digest,
      size: BigInt(bytes.byteLength),
      mime_type: "application/octet-stream",
      name: [],
      chunk_index: index,
      bytes: bytes.subarray(index * CHUNK, (index + 1) * CHUNK),
      accessor_ids: [Principal.fromText(user.accessorId)],
    });
    if ("Err" in answer) throw new Error(Object.keys(answer.Err)[0]);
  };
  return timeMs(async () => {
    await push(0);
    let next = 1;
    const lane = async () => {
      while (next < count) await push(next++);
    };
    await Promise.all(Array.from({ length: concurrency }, lane));
  });
}

async function uploadVsAgent(network: Network): Promise<number> {
  const user = await network.userWithChat();
  await network.setLimit(user.user, 10_000 * MB);
  const storage = await user.user.storage();
  const size = 100 * MB;
  // The bucket knows the user from here on, on both sides.
  await storage.upload(fresh(1), { accessorIds: [user.accessorId] }).done;
  let bare = Number.POSITIVE_INFINITY;
  for (const concurrency of [2, 4, 8, 16]) {
    const ms = await best(2, () => bareUpload(network, fresh(size), user, concurrency));
    note(`bare agent, ${concurrency} at a time: ${(size / MB / (ms / 1000)).toFixed(0)} MB/s`);
    bare = Math.min(bare, ms);
  }
  const library = await best(3, () => {
    const bytes = fresh(size);
    return timeMs(() => storage.upload(bytes, { accessorIds: [user.accessorId] }).done);
  });
  note(`library: ${(size / MB / (library / 1000)).toFixed(0)} MB/s`);
  return library / bare;
}

async function nodePeakMb(network: Network): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), "openstorage-bench-"));
  try {
    const path = join(dir, "big");
    const file = await open(path, "w");
    const piece = fresh(10 * MB);
    for (let left = Number(values.big); left > 0; left -= piece.byteLength) {
      piece.set(fresh(64));
      await file.write(piece, 0, Math.min(left, piece.byteLength));
    }
    await file.close();
    const { user, accessorId } = await network.userWithChat();
    await network.setLimit(user, 2 * Number(values.big));
    const program = fileURLToPath(new URL("upload-file.js", import.meta.url));
    const args = ["--expose-gc", program, network.url, network.index, JSON.stringify(user.identity.toJSON()), accessorId, path];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    const { idle, peak, ms } = JSON.parse(stdout) as { idle: number; peak: number; ms: number };
    note(`${Number(values.big) / MB} MB in ${(ms / 1000).toFixed(1)} s: ${(idle / MB).toFixed(0)} MB idle, ${(peak / MB).toFixed(0)} MB at most`);
    return (peak - idle) / MB;
  } finally {
    await rm(dir, { recursive: true });
  }
}

async function hashVsFastest(): Promise<number> {
  const bytes = fresh(256 * MB);
  const hasher = await createSHA256();
  const fastest = await best(3, () =>
    timeMs(async () => {
      hasher.init();
      for (let at = 0; at < bytes.byteLength; at += MB) hasher.update(bytes.subarray(at, at + MB));
      hasher.digest();
    }),
  );
  const page = await best(3, () => timeMs(() => hashInStream(sourceOf(bytes), {})));
  const node = await best(3, () => timeMs(() => platform.hash(sourceOf(bytes), {})));
  const once = await best(3, () => timeMs(() => hashSource(sourceOf(bytes.subarray(0, 32 * MB)), {})));
  const rate = (ms: number, size = 256) => `${(size / (ms / 1000)).toFixed(0)} MB/s`;
  note(`hash-wasm ${rate(fastest)}, page ${rate(page)}, page up to 32 MB ${rate(once, 32)}, Node ${rate(node)}`);
  return fastest / page;
}

async function smallFilesSpeedup(network: Network): Promise<number> {
  const proxy = await Proxy.to(network.url);
  try {
    const { user, accessorId } = await network.userWithChat();
    const storage = await user.storage({ host: proxy.url });
    const upload = () => storage.upload(fresh(1_000), { accessorIds: [accessorId] }).done;
    await upload();
    // On the Internet Computer an update takes a second or two.
    proxy.faults = { delayMs: 250 };
    const count = Number(values.small);
    const together = (await timeMs(() => Promise.all(Array.from({ length: count }, upload)))) / count;
    const apartMs = await timeMs(async () => {
      for (let i = 0; i < APART; i++) await upload();
    });
    const apart = apartMs / APART;
    note(`small files: ${apart.toFixed(0)} ms each one at a time, ${together.toFixed(0)} ms each together`);
    return apart / together;
  } finally {
    await proxy.stop();
  }
}

async function bundleGzipKb(): Promise<number> {
  const { sizes } = (await import(new URL("scripts/size.mjs", packageDir).href)) as { sizes(): Promise<{ library: number; app: number }> };
  const { library, app } = await sizes();
  note(`bundle: ${library} bytes gzip, ${app} with @icp-sdk/core`);
  return library / 1_000;
}

const network = await Network.start();
try {
  // One after another: none may disturb the next.
  const figures = {
    js_upload_vs_agent: await uploadVsAgent(network),
    js_small_files_speedup: await smallFilesSpeedup(network),
    js_node_peak_mb: await nodePeakMb(network),
    js_hash_vs_fastest: await hashVsFastest(),
    js_bundle_gzip_kb: await bundleGzipKb(),
  };
  const rounded = Object.fromEntries(Object.entries(figures).map(([key, value]) => [key, Number(value.toFixed(2))]));
  if (values.json) console.log(JSON.stringify(rounded));
  else for (const [key, value] of Object.entries(rounded)) console.log(`${key.padEnd(24)} ${value}`);
} finally {
  await network.stop();
}
