/** The library in a real browser: the plain page, against the deployed canisters. */

import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { referenceToCandid } from "@openstorage/client";
import { build as bundle } from "esbuild";
import type { BrowserContext, Page } from "playwright-core";

import { Network, tokenFor } from "../network.js";
import { Proxy } from "../proxy.js";
import { packageDir, readmeProgram, sha256 } from "../support.js";
import { kitPage } from "./kit-page.js";
import { build, launch, PageServer } from "./page.js";
import { bitmap } from "./scene.js";

const MB = 1_000_000;
const CHUNK = 2 * MB;
/** Five times what the slowest step takes. */
const STEP_MS = 60_000;

await build();
const network = await Network.start();
const proxy = await Proxy.to(network.url);
const server = await PageServer.start(proxy.url);
const browser = await launch();
const dir = await mkdtemp(join(tmpdir(), "openstorage-browser-"));
after(async () => {
  await browser.close();
  server.stop();
  await proxy.stop();
  await network.stop();
  await rm(dir, { recursive: true });
});

async function picture(name: string, side: number): Promise<{ path: string; size: number; hash: string }> {
  const bytes = bitmap(side, side);
  const path = join(dir, name);
  await writeFile(path, bytes);
  return { path, size: bytes.byteLength, hash: sha256(bytes) };
}

/** What a page has done, seen from outside. */
interface Watched {
  readonly page: Page;
  readonly workers: string[];
  /** Queries that asked a bucket for bytes. */
  reads: number;
  readonly errors: string[];
}

async function visit(context: BrowserContext): Promise<Watched> {
  const page = await context.newPage();
  page.setDefaultTimeout(STEP_MS);
  const watched: Watched = { page, workers: [], reads: 0, errors: [] };
  page.on("worker", (worker) => watched.workers.push(worker.url()));
  page.on("pageerror", (error) => watched.errors.push(String(error)));
  page.on("request", (request) => {
    if (request.url().endsWith("/query") && request.postDataBuffer()?.includes("read_chunk")) watched.reads++;
  });
  await page.goto(`${server.url}/?index=${network.index}&chat=${network.chat}`);
  return watched;
}

async function storedAs(page: Page, hash: string): Promise<void> {
  await page.waitForFunction(
    () => !/^($|registering|hashing|uploading|verifying)/.test(document.getElementById("status")?.textContent ?? ""),
  );
  assert.equal(await page.textContent("#status"), `stored as ${hash}`);
}

/** The width of the picture in the element's shadow, once it is seen. */
async function widthShown(page: Page): Promise<number> {
  await page.waitForSelector('stored-image[state="ready"], stored-image[state="failed"]');
  const { state, message, width } = await page.evaluate(() => {
    const element = document.querySelector("stored-image");
    return {
      state: element?.getAttribute("state"),
      message: element?.shadowRoot?.querySelector('[part="message"]')?.textContent,
      width: element?.shadowRoot?.querySelector("img")?.naturalWidth ?? 0,
    };
  });
  assert.equal(state, "ready", message ?? "");
  return width;
}

/** Uploads that IndexedDB remembers as unfinished. */
function unfinished(page: Page): Promise<number> {
  return page.evaluate(
    () =>
      new Promise<number>((resolve, reject) => {
        const opening = indexedDB.open("openstorage");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const counting = opening.result.transaction("uploads").objectStore("uploads").count();
          counting.onsuccess = () => resolve(counting.result);
          counting.onerror = () => reject(counting.error);
          opening.result.close();
        };
      }),
  );
}

test("a small picture goes up and is shown; shown again it comes from the cache", async () => {
  const context = await browser.newContext();
  const small = await picture("small.bmp", 40);
  const first = await visit(context);
  await first.page.setInputFiles("#file", small.path);
  await storedAs(first.page, small.hash);
  assert.equal(await widthShown(first.page), 40);
  assert.equal(first.reads, 1);
  // Short files are hashed by the browser itself.
  assert.deepEqual(first.workers, []);

  await first.page.evaluate(() => {
    const element = document.querySelector("stored-image");
    if (!element) return;
    const { shown } = element;
    element.shown = undefined;
    element.shown = shown;
  });
  assert.equal(await widthShown(first.page), 40);
  assert.equal(first.reads, 1);

  const later = await visit(context);
  await later.page.setInputFiles("#file", small.path);
  await storedAs(later.page, small.hash);
  assert.equal(await widthShown(later.page), 40);
  assert.equal(later.reads, 0);
  assert.deepEqual([...first.errors, ...later.errors], []);
  await context.close();
});

test("a large picture is hashed in a worker, and goes on after a reload where it was", async (t) => {
  const context = await browser.newContext();
  const large = await picture("large.bmp", 3_600);
  const { page, workers, errors } = await visit(context);
  // It cannot end before the page has gone.
  proxy.faults = { bytesPerSecond: 6 * MB, bytesUpMax: proxy.bytesUp + 0.8 * large.size };
  await page.setInputFiles("#file", large.path);
  await page.waitForFunction(() => {
    const isUploading = document.getElementById("status")?.textContent === "uploading";
    return isUploading && (document.querySelector("progress")?.value ?? 0) > 0.4;
  });
  assert.equal(workers.length, 1);
  assert.match(workers[0] ?? "", /^blob:/);
  const address = page.url();
  await page.goto("about:blank");
  proxy.faults = {};
  await page.goto(address);
  assert.equal(await unfinished(page), 1);

  // What was on its way when the page went may still arrive: the rest is measured from here.
  const before = proxy.bytesUp;
  await page.setInputFiles("#file", large.path);
  await storedAs(page, large.hash);
  const sent = proxy.bytesUp - before;
  t.diagnostic(`${sent} of ${large.size} bytes after the reload`);
  assert.ok(sent < 0.6 * large.size + 2 * CHUNK, `${sent} of ${large.size} bytes went again`);
  assert.equal(await unfinished(page), 0);
  assert.equal(workers.length, 2);
  assert.equal(await widthShown(page), 3_600);

  // Stored already: a question, and one chunk.
  const stored = proxy.bytesUp;
  await page.reload();
  await page.setInputFiles("#file", large.path);
  await storedAs(page, large.hash);
  assert.ok(proxy.bytesUp - stored < 5.5 * CHUNK, `${proxy.bytesUp - stored} bytes for a stored blob`);
  assert.equal(await widthShown(page), 3_600);
  assert.deepEqual(errors, []);
  await context.close();
});

test("a file that is no picture is stored, and the element says that it cannot show it", async () => {
  const context = await browser.newContext();
  const bytes = randomFillSync(Buffer.alloc(1_000));
  const path = join(dir, "noise.png");
  await writeFile(path, bytes);
  const { page, errors } = await visit(context);
  await page.setInputFiles("#file", path);
  await storedAs(page, sha256(bytes));
  await page.waitForSelector('stored-image[state="failed"]');
  const said = await page.evaluate(() => document.querySelector("stored-image")?.shadowRoot?.querySelector('[part="message"]')?.textContent);
  assert.match(said ?? "", /cannot show this/);
  assert.deepEqual(errors, []);
  await context.close();
});

test("a page that lacks something does what it can without, and says what it lacks for the rest", async () => {
  const { user, chat, accessorId } = await network.userWithChat();
  const reference = await (await user.storage()).upload(randomFillSync(Buffer.alloc(5_000)), { accessorIds: [accessorId] }).done;
  await user.chat.send_message({ chat_id: chat.chat_id, text: "", blob: [referenceToCandid(reference)], name: [], preview: [] });
  const { token } = await tokenFor(user, chat.chat_id);
  const insecure = "http://plain.example";
  const noWasm = "default-src 'self'; worker-src blob:";
  const cases = [
    // No worker may be made: the page hashes by itself.
    { policy: "script-src 'self' 'wasm-unsafe-eval'; worker-src 'none'", outcome: { stored: "done", shown: "done", hashed: "done", forgotten: "done" } },
    // Small blobs are hashed without WebAssembly.
    { policy: noWasm, outcome: { stored: "done", shown: "done", hashed: "NotSupported", forgotten: "done" } },
    // No WebCrypto.
    { origin: insecure, outcome: { stored: "done", shown: "done", hashed: "done", forgotten: "done" } },
    { origin: insecure, encrypted: true, outcome: { stored: "NotSupported", shown: "done", hashed: "done", forgotten: "done" } },
    // Nothing may be kept, and the agent wants to.
    { isPrivate: true, outcome: { stored: "CallFailed", shown: "CallFailed", hashed: "CallFailed", forgotten: "done" } },
  ];
  for (const { origin = network.url, policy, encrypted = false, isPrivate, outcome } of cases) {
    const context = await browser.newContext();
    await context.route(`${insecure}/api/**`, async (route) => {
      const url = network.url + new URL(route.request().url()).pathname;
      await route.fulfill({ response: await route.fetch({ url }) });
    });
    if (isPrivate) await context.addInitScript("IDBFactory.prototype.open = () => { throw new DOMException('denied', 'SecurityError'); }");
    const page = await kitPage(context, origin, STEP_MS, policy);
    const who = [network.index, JSON.stringify(user.identity.toJSON())] as const;
    await page.evaluate(([index, identity]) => window.kit.open(index, identity), who);
    const told = await page.evaluate(([accessor, isEncrypted]) => window.kit.tour(accessor, isEncrypted), [accessorId, encrypted] as const);
    const shown = await page.evaluate((args) => window.kit.load(...args), [reference, accessorId, token] as const);
    assert.deepEqual({ ...told, shown }, outcome, `${origin} ${policy} ${encrypted} ${isPrivate}`);
    await context.close();
  }
});

test("the README's first program stores a picture and shows it, and again in the same chat after a reload", async () => {
  const { outputFiles } = await bundle({
    stdin: { contents: readmeProgram(network.index, network.chat), loader: "ts", resolveDir: fileURLToPath(packageDir) },
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
    logLevel: "error",
  });
  const context = await browser.newContext();
  const body = '<!doctype html><title>my app</title><link rel="icon" href="data:,"><body><script type="module" src="main.js"></script>';
  await context.route(`${network.url}/my-app/`, (route) => route.fulfill({ contentType: "text/html", body }));
  await context.route(`${network.url}/my-app/main.js`, (route) => route.fulfill({ contentType: "text/javascript", body: outputFiles[0]?.text ?? "" }));
  const page = await context.newPage();
  page.setDefaultTimeout(STEP_MS);
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  for (const side of [60, 61]) {
    await page.goto(`${network.url}/my-app/`);
    const shown = await picture(`readme-${side}.bmp`, side);
    await page.getByText("choose a picture").waitFor();
    await page.setInputFiles("input", shown.path);
    await page.getByText(`stored as ${shown.hash}`).waitFor();
    assert.equal(await widthShown(page), side);
  }
  assert.deepEqual(errors, []);
  await context.close();
});
