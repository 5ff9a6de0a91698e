/** The chat's page, as the deployed chat serves it through the verifying gateway. */

import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import type { BrowserContext, Page } from "playwright-core";

import { Network } from "../network.js";
import { Proxy } from "../proxy.js";
import { launch } from "./page.js";

const MB = 1_000_000;
const STEP_MS = 60_000;

const network = await Network.start();
const proxy = await Proxy.to(network.url);
const browser = await launch();
const dir = await mkdtemp(join(tmpdir(), "openstorage-web-"));
after(async () => {
  await browser.close();
  await proxy.stop();
  await network.stop();
  await rm(dir, { recursive: true });
});

/** The page's address, through the proxy. */
const url = `http://${network.chat}.localhost:${new URL(proxy.url).port}/`;

async function enter(context: BrowserContext, name: string, hash = ""): Promise<{ page: Page; errors: string[] }> {
  const page = await context.newPage();
  page.setDefaultTimeout(STEP_MS);
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (line) => line.type() === "error" && errors.push(line.text()));
  await page.goto(url + hash);
  await page.getByLabel("Your name").fill(name);
  await page.getByRole("button", { name: "Enter" }).click();
  await page.getByRole("navigation").waitFor();
  return { page, errors };
}

async function newRoom(page: Page, name: string): Promise<void> {
  await page.getByLabel("Name of the room").fill(name);
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByRole("heading", { name, level: 2 }).waitFor();
}

/** A picture that a browser draws: `side` × `side` pixels in random colours, as a bitmap. */
function bitmap(side: number): Buffer {
  const row = Math.ceil((side * 3) / 4) * 4;
  const bytes = randomFillSync(Buffer.alloc(54 + row * side), 54);
  bytes.write("BM");
  bytes.writeUInt32LE(bytes.byteLength, 2);
  bytes.writeUInt32LE(54, 10);
  bytes.writeUInt32LE(40, 14);
  bytes.writeInt32LE(side, 18);
  bytes.writeInt32LE(side, 22);
  bytes.writeUInt16LE(1, 26);
  bytes.writeUInt16LE(24, 28);
  return bytes;
}

async function file(name: string, bytes: Buffer): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, bytes);
  return path;
}

test("the page is certified, and looks for files only where it may", async () => {
  const answer = await browser.newContext().then(async (context) => (await context.newPage()).goto(url));
  assert.equal(answer?.status(), 200);
  const headers = (await answer?.allHeaders()) ?? {};
  assert.equal(headers["x-ic-verified"], "true");
  assert.match(headers["content-security-policy"] ?? "", /default-src 'none'/);
});

test("ten files at once arrive with previews; another user sees them, and a deleted one goes", async () => {
  const one = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  const { page, errors } = await enter(one, "Ada");
  await newRoom(page, "Lighthouses");
  await newRoom(page, "Archive");
  await page.getByRole("link", { name: /Lighthouses/ }).click();
  await page.getByRole("heading", { name: "Lighthouses", level: 2 }).waitFor();
  const sizes = [0, 1, 999, 10_000, 500_000, 2 * MB, 2 * MB + 1, 9 * MB, 25 * MB];
  const paths = await Promise.all(sizes.map((size, i) => file(`file-${i}.bin`, randomFillSync(Buffer.alloc(size)))));
  paths.push(await file("light.bmp", bitmap(60)));
  await page.setInputFiles("#files", paths);
  await page.getByRole("list", { name: "Uploads" }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll(".post").length === 10 && !document.querySelector(".uploads"));
  await page.waitForSelector('stored-image[state="ready"]');
  assert.equal(await page.locator(".preview").count(), 1);

  const two = await browser.newContext({ viewport: { width: 360, height: 780 } });
  const other = await enter(two, "Grace", new URL(page.url()).hash);
  await other.page.getByRole("main").getByRole("button", { name: "Join" }).click();
  await other.page.waitForSelector('stored-image[state="ready"]');
  for (const seen of [page, other.page]) {
    const wide = await seen.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(wide, false, "the page scrolls sideways");
  }
  const shots = process.env["SCREENSHOT_DIR"];
  if (shots) {
    await page.screenshot({ path: join(shots, "wide.png") });
    await other.page.screenshot({ path: join(shots, "narrow.png") });
    await page.emulateMedia({ colorScheme: "dark" });
    await page.screenshot({ path: join(shots, "dark.png") });
  }

  const picture = page.locator(".post", { has: page.locator("stored-image") });
  await picture.getByRole("button", { name: "Forward" }).click();
  await picture.getByRole("group").getByRole("button", { name: "Archive" }).click();
  await page.getByText("Forwarded to Archive").waitFor();

  await picture.getByRole("button", { name: "Delete" }).click();
  await page.waitForSelector(".gone");
  await other.page.waitForSelector(".gone");
  assert.equal(await other.page.locator("stored-image").count(), 0);

  await page.getByRole("link", { name: /Archive/ }).click();
  await page.waitForSelector('stored-image[state="ready"]');
  assert.deepEqual([...errors, ...other.errors], []);
  await one.close();
  await two.close();
});

test("an upload pauses, goes on, outlives a reload, and sends only what is missing", async () => {
  const context = await browser.newContext();
  const { page } = await enter(context, "Lin");
  await newRoom(page, "Slow");
  const size = 24 * MB;
  const path = await file("large.bin", randomFillSync(Buffer.alloc(size)));
  proxy.faults = { bytesPerSecond: 6 * MB };
  await page.setInputFiles("#files", path);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator('[data-stage="paused"]').waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.waitForFunction((enough) => (document.querySelector<HTMLProgressElement>(".uploads progress")?.value ?? 0) > enough, size * 0.4);
  await page.reload();
  await page.getByRole("region", { name: "Unfinished uploads" }).waitFor();
  proxy.faults = { dropRate: 0.2 };
  const before = proxy.bytesUp;
  await page.getByLabel("Choose file large.bin").setInputFiles(path);
  await page.locator(".post", { hasText: "large.bin" }).waitFor();
  proxy.faults = {};
  assert.ok(proxy.bytesUp - before < 0.9 * size, `${proxy.bytesUp - before} of ${size} bytes went again`);
  await context.close();
});
