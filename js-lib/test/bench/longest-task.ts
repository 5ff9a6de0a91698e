/** How long the page is held up while a file is hashed, in a real Chromium. */

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";

import type { Browser, Page } from "playwright-core";

import { kitPage } from "../browser/kit-page.js";
import { launch } from "../browser/page.js";
import type { Network } from "../network.js";

const STEP_MS = 120_000;
const ROUNDS = 3;

export interface LongestTask {
  /** The longest task of the page's thread, in milliseconds. */
  readonly hashingMs: number;
  /** The same while nothing is done for as long. */
  readonly idleMs: number;
  readonly megabytesPerSecond: number;
}

/** Hashes the file in turn with doing nothing; the least of some rounds, since other programs only make it worse. */
export async function longestTask(network: Network, path: string): Promise<LongestTask> {
  const bytes = await readFile(path);
  const wanted = createHash("sha256").update(bytes).digest("hex");
  const browser = await launch();
  try {
    const { identity } = await network.user();
    const page = await kitPage(await browser.newContext(), network.url, STEP_MS);
    await page.evaluate(([index, user]) => window.kit.open(index, user), [network.index, JSON.stringify(identity.toJSON())] as const);
    await page.setInputFiles("input", path);
    const best = { hashingMs: Number.POSITIVE_INFINITY, idleMs: Number.POSITIVE_INFINITY, megabytesPerSecond: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      const began = performance.now();
      const hashingMs = await traced(browser, page, async () => {
        const found = await page.evaluate(() => window.kit.hash("input"));
        if (found !== wanted) throw new Error(`the page hashed to ${found} instead of ${wanted}`);
      });
      const tookMs = performance.now() - began;
      const idleMs = await traced(browser, page, () => new Promise((resolve) => setTimeout(resolve, tookMs)));
      best.hashingMs = Math.min(best.hashingMs, hashingMs);
      best.idleMs = Math.min(best.idleMs, idleMs);
      best.megabytesPerSecond = Math.max(best.megabytesPerSecond, bytes.byteLength / 1_000 / tookMs);
    }
    return best;
  } finally {
    await browser.close();
  }
}

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  /** Microseconds. */
  readonly dur?: number;
  readonly args?: { readonly name?: string };
}

/** The browser's own record of what its threads did: the longest task of the page's, in milliseconds. */
async function traced(browser: Browser, page: Page, work: () => Promise<unknown>): Promise<number> {
  await browser.startTracing(page, { categories: ["toplevel", "disabled-by-default-lighthouse", "__metadata"] });
  await work();
  const trace = JSON.parse((await browser.stopTracing()).toString()) as { traceEvents: TraceEvent[] };
  const threads = trace.traceEvents.filter(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain");
  const isPage = ({ pid, tid }: TraceEvent) => threads.some((thread) => thread.pid === pid && thread.tid === tid);
  const tasks = trace.traceEvents.filter((event) => event.name.endsWith("RunTask") && isPage(event));
  if (tasks.length === 0) throw new Error("the browser recorded no task of the page");
  return Math.max(...tasks.map(({ dur = 0 }) => dur)) / 1_000;
}
