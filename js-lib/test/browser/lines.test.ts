/** The library in Chromium on lines as they are. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import type { Progress } from "@openstorage/client";
import type { Browser, BrowserContext, Page } from "playwright-core";

import { Network } from "../network.js";
import { kitPage } from "./kit-page.js";
import { launch } from "./page.js";

const STEP_MS = 90_000;
const MB = 1_000_000;

let network: Network;
let browser: Browser;
before(async () => {
  [network, browser] = await Promise.all([Network.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await network?.stop();
});

/** A page of a user whose line the browser itself throttles. */
async function page(context: BrowserContext): Promise<{ page: Page; accessorId: string; throttle(bytesPerSecond: number): Promise<void> }> {
  const { user, accessorId } = await network.userWithChat();
  const opened = await kitPage(context, network.url, STEP_MS);
  await opened.evaluate(([index, identity]) => window.kit.open(index, identity), [network.index, JSON.stringify(user.identity.toJSON())] as const);
  const devtools = await context.newCDPSession(opened);
  await devtools.send("Network.enable");
  const throttle = async (uploadThroughput: number) => {
    await devtools.send("Network.emulateNetworkConditions", { offline: uploadThroughput === 0, latency: 0, downloadThroughput: -1, uploadThroughput });
  };
  return { page: opened, accessorId, throttle };
}

function onlyGrows(seen: readonly Progress[]): void {
  seen.reduce((before, now) => {
    assert.ok(now.phase !== before.phase || now.bytesDone >= before.bytesDone, `${now.bytesDone} after ${before.bytesDone}`);
    return now;
  });
}

test("progress is in bytes, within a chunk too", { timeout: STEP_MS }, async () => {
  const context = await browser.newContext();
  const { page: opened, accessorId, throttle } = await page(context);
  await throttle(200_000);
  const { outcome, seen } = await opened.evaluate(([size, accessorId]) => window.kit.watch(size, accessorId), [1.9 * MB, accessorId] as const);
  assert.equal(outcome, "done");
  onlyGrows(seen);
  const between = new Set(seen.map(({ bytesDone, bytesTotal }) => Math.floor((10 * bytesDone) / bytesTotal)));
  assert.ok(between.size >= 8, `tenths: ${[...between].join()}`);
  await context.close();
});

test("a page that goes offline says so, and goes on when it is back", { timeout: STEP_MS }, async () => {
  const context = await browser.newContext();
  const { page: opened, accessorId, throttle } = await page(context);
  await throttle(0.4 * MB);
  const watching = opened.evaluate(([size, accessorId]) => window.kit.watch(size, accessorId), [12 * MB, accessorId] as const);
  await opened.waitForFunction(() => (window.kit.progress?.bytesDone ?? 0) > 1_000_000 && window.kit.progress?.phase === "uploading");
  await throttle(0);
  await opened.waitForFunction(() => window.kit.progress?.waiting === true && window.kit.progress.bytesPerSecond === 0);
  await throttle(-1);
  const { outcome, seen } = await watching;
  assert.equal(outcome, "done");
  onlyGrows(seen);
  assert.equal(seen.at(-1)?.waiting, false);
  await context.close();
});
