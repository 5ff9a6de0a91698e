/** `<stored-video>` and `<stored-file>` in a real browser, against the deployed canisters. */

import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";

import { type BlobReference, referenceToCandid } from "@openstorage/client";
import type { Shown, ShownBlob } from "@openstorage/client/elements";
import type { BrowserContext, Page } from "playwright-core";

import { Network, tokenFor } from "../network.js";
import { film } from "./film.js";
import { kitPage } from "./kit-page.js";
import { launch } from "./page.js";

/** Five times what the slowest step takes. */
const STEP_MS = 60_000;
const PART_BYTES = 2_000_000;

const network = await Network.start();
const browser = await launch();
after(async () => {
  await browser.close();
  await network.stop();
});

/** 50 seconds of red and 50 of blue, drawn by the first test. */
let bytes: Buffer;

/** The same film as another blob, since browsers keep what they have loaded: empty elements more change nothing. */
function again(times: number): Buffer {
  return Buffer.concat([bytes, ...Array<Buffer>(times).fill(Buffer.from([0xec, 0x80]))]);
}

/** A page of somebody who has a chat. */
class Visit {
  /** Fresh tokens that its elements have asked for. */
  asked = 0;
  /** What happens when one is asked for. */
  onAsked = () => {};
  /** What its players asked the bucket for: where each range begins. */
  readonly ranges: number[] = [];
  readonly errors: string[] = [];

  private constructor(
    readonly page: Page,
    private readonly user: Awaited<ReturnType<Network["userWithChat"]>>,
  ) {}

  static async to(context: BrowserContext): Promise<Visit> {
    const user = await network.userWithChat();
    const page = await kitPage(context, network.url, STEP_MS);
    const visit = new Visit(page, user);
    page.on("pageerror", (error) => visit.errors.push(String(error)));
    page.on("request", async (request) => {
      if (!new URL(request.url()).pathname.startsWith("/m/")) return;
      const { range = "bytes=0-" } = await request.allHeaders();
      visit.ranges.push(Number(/\d+/.exec(range)?.[0]));
    });
    await page.exposeFunction("freshToken", async () => {
      visit.asked++;
      visit.onAsked();
      return (await tokenFor(user.user, user.chat.chat_id)).token;
    });
    const start = async ([index, identity]: readonly [string, string]) => {
      await window.kit.open(index, identity);
      window.kit.show((window as unknown as { freshToken(): Promise<string> }).freshToken);
    };
    await page.evaluate(start, [network.index, JSON.stringify(user.user.identity.toJSON())] as const);
    return visit;
  }

  /** Uploads and posts it, from outside of the page. */
  async post(bytes: Buffer, name: string, mimeType: string): Promise<ShownBlob> {
    const { user, accessorId, chat } = this.user;
    const storage = await user.storage();
    const data = new Uint8Array(bytes);
    const reference: BlobReference = await storage.upload(data, { accessorIds: [accessorId], name, mimeType }).done;
    const message = { chat_id: chat.chat_id, text: "", blob: [referenceToCandid(reference)] as [ReturnType<typeof referenceToCandid>] };
    const sent = await user.chat.send_message({ ...message, name: [], preview: [] });
    assert.ok("Ok" in sent);
    const { token } = await tokenFor(user, chat.chat_id);
    return { reference, accessorId, token, name };
  }

  /** Puts an element on the page, and waits for how it ends. */
  async show(tag: "stored-image" | "stored-video" | "stored-file", shown: Shown): Promise<void> {
    await this.page.evaluate(
      ([tag, shown]) => {
        const element = document.createElement(tag);
        element.shown = shown;
        document.body.replaceChildren(element);
      },
      [tag, shown] as const,
    );
    await this.page.waitForSelector(`${tag}[state="ready"], ${tag}[state="failed"]`);
    assert.equal(await this.said(), "ready");
  }

  /** The element's state, and its words where it has failed. */
  said(): Promise<string> {
    return this.page.evaluate(() => {
      const element = document.body.firstElementChild;
      const words = element?.shadowRoot?.querySelector('[part="message"]')?.textContent ?? "";
      return [element?.getAttribute("state"), words].filter(Boolean).join(": ");
    });
  }

  /** Jumps, and waits until the picture of that second is seen; its colour on the left. */
  async seek(second: number): Promise<readonly number[]> {
    await this.page.evaluate(
      (second) =>
        new Promise<void>((resolve) => {
          const video = document.body.firstElementChild?.shadowRoot?.querySelector("video");
          if (!video) throw new Error("no video");
          video.addEventListener("seeked", () => requestAnimationFrame(() => resolve()), { once: true });
          video.currentTime = second;
        }),
      second,
    );
    return this.colour();
  }

  async colour(): Promise<readonly number[]> {
    const picture = await this.page.locator("stored-video").screenshot();
    return this.page.evaluate(async (png) => {
      const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
      const paint = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      paint?.drawImage(bitmap, 0, 0);
      const pixel = paint?.getImageData(bitmap.width / 4, bitmap.height / 3, 1, 1).data ?? [];
      return Array.from(pixel).slice(0, 3);
    }, picture.toString("base64"));
  }
}

/** Video is stored with less than all colours. */
function isNear(colour: readonly number[], wanted: readonly number[]): boolean {
  return wanted.every((channel, i) => Math.abs(channel - (colour[i] ?? 0)) < 60);
}

const RED = [255, 0, 0];
const BLUE = [0, 0, 255];

test("a film plays from wherever the user jumps to", async (t) => {
  const context = await browser.newContext();
  const visit = await Visit.to(context);
  bytes = await film(visit.page, [...Array(50).fill("#f00"), ...Array(50).fill("#00f")]);
  const shown = await visit.post(bytes, "film.webm", "video/webm");
  assert.ok(bytes.byteLength > 3 * PART_BYTES, `${bytes.byteLength} bytes`);
  await visit.show("stored-video", shown);
  const seen = await visit.page.evaluate(() => {
    const video = document.body.firstElementChild?.shadowRoot?.querySelector("video");
    return { width: video?.videoWidth, seconds: Math.round(video?.duration ?? 0), path: new URL(video?.src ?? "").pathname };
  });
  assert.deepEqual(seen, { width: 640, seconds: 100, path: `/m/${shown.accessorId}/${shown.reference.blobId}` });

  const later = await visit.seek(80);
  assert.ok(isNear(later, BLUE), `${later} at 80 s`);
  const far = Math.max(...visit.ranges);
  t.diagnostic(`${bytes.byteLength} bytes; ranges from ${visit.ranges.join(", ")}`);
  assert.ok(far > bytes.byteLength / 2 && far % PART_BYTES !== 0, `the furthest range began at ${far}`);
  const earlier = await visit.seek(20);
  assert.ok(isNear(earlier, RED), `${earlier} at 20 s`);
  assert.equal(visit.asked, 0);
  await context.close();
});

test("a film whose token expires goes on under a fresh one; where there is none it says so", async () => {
  const context = await browser.newContext();
  const visit = await Visit.to(context);
  const shown = await visit.post(again(1), "film.webm", "video/webm");
  let isExpired = true;
  // A bucket's refusal of a token is not certified, and gateways say this instead.
  await context.route(/\/m\//, (route) => (isExpired ? route.fulfill({ status: 503 }) : route.fallback()));
  visit.onAsked = () => {
    isExpired = false;
  };
  await visit.show("stored-video", shown);
  assert.equal(visit.asked, 1);

  isExpired = true;
  const later = await visit.seek(90);
  assert.ok(isNear(later, BLUE), `${later} at 90 s`);
  assert.equal(visit.asked, 2);
  assert.equal(await visit.said(), "ready");

  const other = await visit.post(again(2), "film.webm", "video/webm");
  await visit.show("stored-video", other);
  isExpired = true;
  visit.onAsked = () => {};
  visit.seek(90).catch(() => {});
  await visit.page.waitForSelector('stored-video[state="failed"]');
  assert.match(await visit.said(), /the token has expired/);
  assert.deepEqual(visit.errors, []);
  await context.close();
});

test("a file is saved under its name; an old link asks for a fresh token first", async () => {
  const context = await browser.newContext();
  const visit = await Visit.to(context);
  const report = randomFillSync(Buffer.alloc(2 * PART_BYTES + 5));
  const shown = await visit.post(report, "a report.bin", "application/octet-stream");
  await visit.page.clock.install();
  await visit.show("stored-file", shown);
  const link = visit.page.getByRole("link", { name: "a report.bin (4.0 MB)" });
  const save = async () => {
    const [download] = await Promise.all([visit.page.waitForEvent("download"), link.click()]);
    assert.equal(download.suggestedFilename(), "a report.bin");
    assert.ok(report.equals(await readFile(await download.path())));
  };
  await save();
  assert.equal(visit.asked, 0);
  await visit.page.clock.fastForward("02:00:00");
  await save();
  assert.equal(visit.asked, 1);
  assert.deepEqual(visit.errors, []);
  await context.close();
});

test("a small file that lies in the app's record is shown without a call, and one that is damaged says so", async () => {
  const context = await browser.newContext();
  const page = await kitPage(context, network.url, STEP_MS);
  const calls: string[] = [];
  page.on("request", (request) => calls.push(request.url()));
  // Nobody has called `setStorage` here.
  const outcome = await page.evaluate(async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [7, 5];
    canvas.getContext("2d")?.fillRect(0, 0, 7, 5);
    const base64 = canvas.toDataURL("image/png").split(",")[1] ?? "";
    const ended = (element: HTMLElement) => new Promise<void>((resolve) => ["ready", "failed"].map((name) => element.addEventListener(name, () => resolve(), { once: true })));
    const show = async (tag: "stored-image" | "stored-file", shown: Shown) => {
      const element = document.createElement(tag);
      element.shown = shown;
      const end = ended(element);
      document.body.append(element);
      await end;
      return element;
    };
    const image = await show("stored-image", { inline: { bytes: base64, mimeType: "image/png" } });
    const img = image.shadowRoot?.querySelector("img");
    const src = img?.src;
    // A record that was read again has the same bytes: nothing flickers.
    image.shown = { inline: { bytes: base64, mimeType: "image/png" } };
    const isSteady = image.shadowRoot?.querySelector("img")?.src === src;
    await show("stored-file", { inline: { bytes: new TextEncoder().encode("a,b\n"), mimeType: "text/csv" }, name: "a.csv" });
    const damaged = await show("stored-file", { inline: { bytes: "no base64!", mimeType: "text/csv" } });
    const said = damaged.shadowRoot?.querySelector('[part="message"]')?.textContent;
    damaged.remove();
    return { width: img?.naturalWidth, isSteady, said };
  });
  assert.deepEqual(outcome, { width: 7, isSteady: true, said: "the bytes of an inline file are neither bytes nor base64" });
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "a.csv (4 bytes)" }).click()]);
  assert.equal(download.suggestedFilename(), "a.csv");
  assert.equal(await readFile(await download.path(), "utf8"), "a,b\n");
  assert.deepEqual(calls.filter((url) => !url.startsWith("blob:")), []);
  await context.close();
});

/** What an uploader's script leaves in the origin that it runs in. */
const SCRIPT = 'try { localStorage.setItem("ran", location.href); } catch {}';
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect width="30" height="20" fill="#00f"/><script>${SCRIPT}</script></svg>`;

/** Opens a URL of the page in a tab of its own, as its user may; what scripts have left in the page's origin. */
async function opened(page: Page, url: string): Promise<string | null> {
  const tab = page.context().waitForEvent("page", { timeout: 1_000 }).catch(() => undefined);
  await page.evaluate((url) => void window.open(url), url);
  const [other] = [await tab];
  await other?.waitForTimeout(500).catch(() => {});
  // A browser opens from its own menu what a page may not open.
  if (url.startsWith("data:")) await other?.goto(url).catch(() => {});
  await other?.close();
  return page.evaluate(() => localStorage.getItem("ran"));
}

test("a picture that could run is shown, and runs nothing in the page's origin wherever it is opened", async () => {
  const context = await browser.newContext();
  const visit = await Visit.to(context);
  for (const mimeType of ["image/svg+xml", "IMAGE/SVG+XML"]) {
    const shown = await visit.post(Buffer.from(`${SVG}<!-- ${mimeType} -->`), "drawing.svg", mimeType);
    // From the bucket, then from the cache.
    for (let turn = 0; turn < 2; turn++) {
      await visit.show("stored-image", shown);
      const img = await visit.page.evaluate(() => {
        const img = document.body.firstElementChild?.shadowRoot?.querySelector("img");
        return { width: img?.naturalWidth, src: img?.src ?? "" };
      });
      assert.equal(img.width, 30);
      assert.equal(await opened(visit.page, img.src), null);
    }
  }
  await context.close();
});

test("whatever type a stranger gives, a URL of the page's origin runs nothing; pictures keep theirs", async () => {
  const context = await browser.newContext();
  const page = await kitPage(context, network.url, STEP_MS);
  const html = `<html xmlns="http://www.w3.org/1999/xhtml"><body><script>${SCRIPT}</script></body></html>`;
  const urlOf = (mimeType: string, text: string) => page.evaluate(async ([mimeType, text]) => {
    const file = document.createElement("stored-file");
    file.shown = { inline: { bytes: new TextEncoder().encode(text), mimeType } };
    const ready = new Promise((resolve) => file.addEventListener("ready", resolve, { once: true }));
    document.body.append(file);
    await ready;
    const url = file.shadowRoot?.querySelector("a")?.href ?? "";
    return { url, type: (await (await fetch(url)).blob()).type };
  }, [mimeType, text] as const);
  const running = ["text/html", "TEXT/HTML", "text/html; charset=utf-8", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "application/rss+xml", "application/pdf", "text/javascript", "multipart/x-mixed-replace", "video/x+xml", "", "*/*", "unknown/unknown"];
  for (const mimeType of running) {
    const { url, type } = await urlOf(mimeType, mimeType === "image/svg+xml" ? SVG : html);
    assert.equal(type, "application/octet-stream", mimeType);
    assert.equal(await opened(page, url), null, mimeType);
  }
  for (const mimeType of ["image/png", "image/jpeg", "image/webp", "image/avif", "image/vnd.microsoft.icon", "audio/mpeg", "audio/mp4", "video/webm", "video/mp4", "text/plain"]) {
    const { url, type } = await urlOf(mimeType, html);
    assert.equal(type, mimeType);
    assert.equal(await opened(page, url), null, mimeType);
  }
  await context.close();
});
