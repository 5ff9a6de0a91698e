/**
 * Figures of the library on a local network:
 *
 *   npm run bench -- [--json] [--out DIR] [--big BYTES] [--page BYTES] [--small FILES] [--only KEY]
 *
 * Prints a table, and with `--json` one object as the last line. `--out` writes `js.md` into a folder.
 */

import { execFile } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

import { hashSource, sourceOf } from "@openstorage/client";
import { createSHA256 } from "hash-wasm";

import { hashInStream } from "../../src/hash.js";
import { platform } from "../../src/platform/node.js";
import { kitPage } from "../browser/kit-page.js";
import { launch } from "../browser/page.js";
import { agentOf, Network } from "../network.js";
import { Proxy } from "../proxy.js";
import { packageDir } from "../support.js";
import { bareUploadMs } from "./bare.js";
import { longestTask } from "./longest-task.js";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    out: { type: "string" },
    /** The file that Node uploads, the file that the page hashes, and how many small ones. */
    big: { type: "string", default: "2000000000" },
    page: { type: "string", default: "500000000" },
    small: { type: "string", default: "1000" },
    /** Only the figures whose keys contain this. */
    only: { type: "string", default: "" },
  },
});
const MB = 1_000_000;
const CHUNK = 2 * MB;
const UPLOAD_ROUNDS = 3;
/** Each way: a call takes 2 s, as updates of the Internet Computer do. */
const SLOW_DELAY_MS = 1_000;
const SLOW_ROUNDS = 2;
const SLOW_BYTES = 60 * MB;
/** A household's line: 50 Mbit/s upwards, 100 ms there and back. */
const HOME = { bytesPerSecond: 6_250_000, delayMs: 50 };
const HASH_ROUNDS = 5;
/** For the gigabytes that are stored. */
const CYCLES = 100_000_000_000_000n;
/** Files uploaded one at a time: enough for a rate, and done in a minute. */
const APART = 30;

const notes: string[] = [];
/** What stands behind a figure. */
function note(text: string): void {
  notes.push(text);
  console.log(text);
}

function fresh(size: number): Uint8Array<ArrayBuffer> {
  return randomFillSync(new Uint8Array(size));
}

async function timeMs(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

async function uploadVsAgent(network: Network): Promise<number> {
  const user = await network.userWithChat();
  await network.setLimit(user.user, 10_000 * MB);
  const storage = await user.user.storage();
  const size = 100 * MB;
  // The bucket knows the user from here on, on both sides.
  await storage.upload(fresh(1), { accessorIds: [user.accessorId] }).done;
  const rate = (ms: number) => `${(size / MB / (ms / 1000)).toFixed(0)} MB/s`;
  const bare = new Map([2, 4, 8, 16].map((concurrency) => [concurrency, Number.POSITIVE_INFINITY]));
  let library = Number.POSITIVE_INFINITY;
  // In turns, so that a busy minute of the machine hits both.
  for (let round = 0; round < UPLOAD_ROUNDS; round++) {
    for (const [concurrency, best] of bare) {
      const upload = { agent: user.user.agent, index: network.index, accessorId: user.accessorId, bytes: fresh(size), concurrency };
      bare.set(concurrency, Math.min(best, await bareUploadMs(upload)));
    }
    const bytes = fresh(size);
    library = Math.min(library, await timeMs(() => storage.upload(bytes, { accessorIds: [user.accessorId] }).done));
  }
  const each = Array.from(bare, ([concurrency, ms]) => `${concurrency} at a time ${rate(ms)}`);
  note(`100 MB: library ${rate(library)}; bare agent, ${each.join(", ")}`);
  return library / Math.min(...bare.values());
}

/** The library's upload, or the bare agent's, so many chunks at a time. */
type UploadMs = (concurrency?: number) => Promise<number>;

/** The library's time to that of the bare agent's best fixed concurrency, on a line on which a call takes 2 s. */
async function slowVsAgent(where: string, uploadMs: UploadMs): Promise<number> {
  const bare = new Map([4, 8, 16, 32].map((concurrency) => [concurrency, Number.POSITIVE_INFINITY]));
  let library = Number.POSITIVE_INFINITY;
  for (let round = 0; round < SLOW_ROUNDS; round++) {
    for (const [concurrency, best] of bare) bare.set(concurrency, Math.min(best, await uploadMs(concurrency)));
    library = Math.min(library, await uploadMs());
  }
  const seconds = (ms: number) => `${(ms / 1_000).toFixed(1)} s`;
  const each = Array.from(bare, ([concurrency, ms]) => `${concurrency} at a time ${seconds(ms)}`);
  note(`${SLOW_BYTES / MB} MB where a call takes 2 s, ${where}: library ${seconds(library)}; bare agent, ${each.join(", ")}`);
  return library / Math.min(...bare.values());
}

/** In a proxy's hands: the line gets its faults once the bucket knows the user. */
async function slowInNode(network: Network): Promise<number> {
  const proxy = await Proxy.to(network.url);
  try {
    const { user, accessorId } = await network.userWithChat();
    await network.setLimit(user, 10_000 * MB);
    const agent = await agentOf(proxy.url, user.identity);
    const storage = await user.storage({ agent });
    await storage.upload(fresh(1), { accessorIds: [accessorId] }).done;
    proxy.faults = { delayMs: SLOW_DELAY_MS };
    return await slowVsAgent("Node", async (concurrency) => {
      const bytes = fresh(SLOW_BYTES);
      if (concurrency !== undefined) return bareUploadMs({ agent, index: network.index, accessorId, bytes, concurrency });
      return timeMs(() => storage.upload(bytes, { accessorIds: [accessorId] }).done);
    });
  } finally {
    await proxy.stop();
  }
}

async function slowInBrowser(network: Network): Promise<number> {
  const proxy = await Proxy.to(network.url);
  const browser = await launch();
  try {
    const { user, accessorId } = await network.userWithChat();
    await network.setLimit(user, 10_000 * MB);
    const context = await browser.newContext();
    const page = await kitPage(context, proxy.url, 120_000);
    // What is routed goes through this program.
    await context.unrouteAll();
    await page.evaluate(([index, identity]) => window.kit.open(index, identity), [network.index, JSON.stringify(user.identity.toJSON())] as const);
    const upload = (size: number) => async (concurrency?: number) =>
      page.evaluate(([size, accessorId, concurrency]) => window.kit.uploadMs(size, accessorId, concurrency), [size, accessorId, concurrency] as const);
    await upload(1)();
    proxy.faults = { delayMs: SLOW_DELAY_MS };
    return await slowVsAgent("Chromium, which opens six connections", upload(SLOW_BYTES));
  } finally {
    await browser.close();
    await proxy.stop();
  }
}

async function homeLine(network: Network): Promise<number> {
  const proxy = await Proxy.to(network.url);
  try {
    const { user, accessorId } = await network.userWithChat();
    await network.setLimit(user, 10_000 * MB);
    const storage = await user.storage({ host: proxy.url });
    await storage.upload(fresh(1), { accessorIds: [accessorId] }).done;
    proxy.faults = HOME;
    const size = 100 * MB;
    const ms = await timeMs(() => storage.upload(fresh(size), { accessorIds: [accessorId] }).done);
    const lineMs = (size / HOME.bytesPerSecond) * 1_000;
    note(`${size / MB} MB over 50 Mbit/s with 100 ms: ${(ms / 1_000).toFixed(1)} s, the line alone ${(lineMs / 1_000).toFixed(1)} s`);
    return ms / lineMs;
  } finally {
    await proxy.stop();
  }
}

/** Runs with a file of so many bytes, all of whose chunks differ. */
async function withFile<T>(size: number, work: (path: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "openstorage-bench-"));
  try {
    const path = join(dir, "file");
    const file = await open(path, "w");
    const piece = fresh(CHUNK);
    for (let left = size; left > 0; left -= piece.byteLength) {
      piece.set(fresh(64));
      await file.write(piece, 0, Math.min(left, piece.byteLength));
    }
    await file.close();
    return await work(path);
  } finally {
    await rm(dir, { recursive: true });
  }
}

async function nodePeakMb(network: Network): Promise<number> {
  const size = Number(values.big);
  const { user, accessorId } = await network.userWithChat();
  await network.setLimit(user, 2 * size);
  const program = fileURLToPath(new URL("upload-file.js", import.meta.url));
  return withFile(size, async (path) => {
    const args = ["--expose-gc", program, network.url, network.index, JSON.stringify(user.identity.toJSON()), accessorId, path];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    const { idle, peak, ms } = JSON.parse(stdout) as { idle: number; peak: number; ms: number };
    note(`${size / MB} MB in ${(ms / 1000).toFixed(1)} s: ${(idle / MB).toFixed(0)} MB idle, ${(peak / MB).toFixed(0)} MB at most`);
    return (peak - idle) / MB;
  });
}

async function longestTaskMs(network: Network): Promise<number> {
  const size = Number(values.page);
  const { hashingMs, idleMs, megabytesPerSecond } = await withFile(size, (path) => longestTask(network, path));
  note(`${size / MB} MB hashed in Chromium at ${megabytesPerSecond.toFixed(0)} MB/s: longest task ${hashingMs.toFixed(1)} ms, ${idleMs.toFixed(1)} ms when idle`);
  return hashingMs;
}

async function hashVsFastest(): Promise<number> {
  const bytes = fresh(256 * MB);
  const hasher = await createSHA256();
  const ways = {
    fastest: async () => {
      hasher.init();
      for (let at = 0; at < bytes.byteLength; at += MB) hasher.update(bytes.subarray(at, at + MB));
      hasher.digest();
    },
    page: () => hashInStream(sourceOf(bytes), {}),
    node: () => platform.hash(sourceOf(bytes), {}),
    once: () => hashSource(sourceOf(bytes.subarray(0, 32 * MB)), {}),
  };
  const least = { fastest: Number.POSITIVE_INFINITY, page: Number.POSITIVE_INFINITY, node: Number.POSITIVE_INFINITY, once: Number.POSITIVE_INFINITY };
  for (let round = 0; round < HASH_ROUNDS; round++) {
    for (const way of Object.keys(ways) as (keyof typeof ways)[]) least[way] = Math.min(least[way], await timeMs(ways[way]));
  }
  const { fastest, page, node, once } = least;
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

interface Figure {
  readonly key: string;
  readonly what: string;
  readonly goal: string;
  measure(network: Network): Promise<number>;
}

/** One after another: none may disturb the next. */
const FIGURES: readonly Figure[] = [
  {
    key: "js_upload_vs_agent",
    what: "time of a 100 MB upload, hash included, to that of the bare agent's best fixed concurrency, hash not included",
    goal: "≤ 1.3",
    measure: uploadVsAgent,
  },
  {
    key: "js_upload_vs_agent_2s",
    what: "the same for 60 MB in Node where a call takes 2 s",
    goal: "≤ 1.1",
    measure: slowInNode,
  },
  {
    key: "js_upload_vs_agent_2s_browser",
    what: "the same in Chromium",
    goal: "≤ 1.1",
    measure: slowInBrowser,
  },
  {
    key: "js_upload_vs_line",
    what: "time of a 100 MB upload over 50 Mbit/s with 100 ms there and back to what the line alone takes",
    goal: "≤ 1.15",
    measure: homeLine,
  },
  {
    key: "js_small_files_speedup",
    what: `${values.small} files of 1 kB: how many a second all at once to one at a time, where a call takes 0.5 s on the line`,
    goal: "≥ 5",
    measure: smallFilesSpeedup,
  },
  {
    key: "js_node_peak_mb",
    what: `resident memory of Node above idle while a file of ${Number(values.big) / MB} MB goes up, MB`,
    goal: "≤ 64",
    measure: nodePeakMb,
  },
  {
    key: "js_longest_task_ms",
    what: `longest task of the page's thread in Chromium while ${Number(values.page) / MB} MB are hashed, ms`,
    goal: "≤ 50",
    measure: longestTaskMs,
  },
  {
    key: "js_hash_vs_fastest",
    what: "rate of the page's hash without a worker to that of hash-wasm alone, bytes in memory",
    goal: "≥ 0.8",
    measure: hashVsFastest,
  },
  {
    key: "js_bundle_gzip_kb",
    what: "the library without @icp-sdk/core, minified, gzip, kB",
    goal: "",
    measure: bundleGzipKb,
  },
];

const found: [Figure, number][] = [];
const network = await Network.start();
try {
  await network.topUp(CYCLES);
  for (const figure of FIGURES.filter(({ key }) => key.includes(values.only))) found.push([figure, Number((await figure.measure(network)).toFixed(2))]);
} finally {
  await network.stop();
}

const rows = found.map(([{ key, what, goal }, value]) => `| ${what} (\`${key}\`) | ${value} | ${goal} |\n`);
const table = `| figure | measured | goal |\n| --- | ---: | ---: |\n${rows.join("")}`;
const json = JSON.stringify(Object.fromEntries(found.map(([{ key }, value]) => [key, value])));
console.log(table);
if (values.out !== undefined) {
  const about = "`cargo xtask bench --only js` writes this page. Ratios compare runs on one machine in one bench; times depend on it.";
  const page = `# What the JavaScript library costs\n\n${about}\n\n${table}\n${notes.map((line) => `- ${line}\n`).join("")}`;
  await writeFile(join(values.out, "js.md"), page);
}
if (values.json) console.log(json);
