/** The chat's page, as the deployed chat serves it through the verifying gateway. */

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { Actor } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { type _SERVICE as Chat, idlFactory } from "@openstorage/client/candid/chat";
import type { BrowserContext, Page } from "playwright-core";

import { agentOf } from "../network.js";
import { mp4Film, secondSeen } from "./mp4.js";
import { arrived, bitmap, dropFiles, inviteTo, MB, newRoom, noise, openRoom, post, Scene, wav } from "./scene.js";

const scene = await Scene.start();
const { network, proxy } = scene;
after(() => scene.stop());

const WIDE = { viewport: { width: 1440, height: 900 } };
const NARROW = { viewport: { width: 360, height: 780 } };

async function assertNotWide(page: Page): Promise<void> {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.equal(wide, false, "the page scrolls sideways");
}

test("the page is certified, and looks for files only where it may", async () => {
  const context = await scene.browser.newContext();
  const answer = await (await context.newPage()).goto(scene.url);
  assert.equal(answer?.status(), 200);
  const headers = (await answer?.allHeaders()) ?? {};
  assert.equal(headers["x-ic-verified"], "true");
  assert.match(headers["content-security-policy"] ?? "", /default-src 'none'/);
  await context.close();
});

test("ten mixed files dropped at once arrive; another user sees them, a forwarded one stays, a deleted one goes", async () => {
  const { page, context, errors } = await scene.enter("Ada", WIDE);
  await newRoom(page, "Archive");
  await newRoom(page, "Lighthouses");
  const sizes = [0, 1, 999, 10_000, 500_000, 2 * MB, 2 * MB + 1, 25 * MB];
  const paths = await Promise.all(sizes.map((size, i) => scene.file(`file-${i}.bin`, noise(size))));
  paths.push(await scene.file("light.bmp", bitmap(900, 600)), await scene.file("film.mp4", await mp4Film(context, 20)));
  await dropFiles(page, ".scroll", paths);
  await page.getByRole("list", { name: "Uploads" }).waitFor();
  await page.getByText(/of 10 files sent/).waitFor();
  await page.waitForFunction(() => document.querySelectorAll(".post").length === 10 && !document.querySelector(".uploads"));
  await page.waitForSelector('stored-image[state="ready"]');
  assert.equal(await page.locator(".preview").count(), 2);

  const other = await scene.enter("Grace", NARROW, await inviteTo(page));
  await other.page.waitForSelector('stored-image[state="ready"]');
  await assertNotWide(page);
  await assertNotWide(other.page);

  // The film is sought in where it stands, by the user who did not send it.
  await other.page.waitForSelector('stored-video[state="ready"]');
  for (const second of [17, 4]) {
    await other.page.evaluate(async (time) => {
      const film = document.querySelector("stored-video")?.shadowRoot?.querySelector("video");
      if (!film) throw new Error("no film");
      const seeked = new Promise((resolve) => film.addEventListener("seeked", resolve, { once: true }));
      film.currentTime = time;
      await seeked;
    }, second + 0.5);
    assert.equal(await secondSeen(other.page), second);
  }

  const picture = post(page, "light.bmp");
  await picture.hover();
  await picture.getByRole("button", { name: "Forward" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Archive" }).click();
  await page.getByText("Forwarded to Archive").waitFor();

  await picture.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.waitForSelector(".gone");
  await other.page.waitForSelector(".gone");
  assert.equal(await other.page.locator("stored-image").count(), 0);

  await openRoom(page, "Archive");
  await page.waitForSelector('stored-image[state="ready"]');
  assert.deepEqual([...errors, ...other.errors], []);
  await context.close();
  await other.context.close();
});

test("a pasted picture is sent, and its preview is seen before its bytes have come", async () => {
  const { page, context, errors } = await scene.enter("Hedy", WIDE);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await newRoom(page, "Clips");
  await page.evaluate(async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [640, 320];
    const paint = canvas.getContext("2d");
    if (!paint) throw new Error("no canvas");
    paint.fillStyle = "teal";
    paint.fillRect(0, 0, 320, 320);
    const png = await new Promise<Blob>((resolve) => canvas.toBlob((blob) => resolve(blob as Blob), "image/png"));
    await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
  });
  await page.getByRole("textbox", { name: "Message" }).press("Control+V");
  await page.waitForSelector('.post stored-image[state="ready"]');

  // Whoever looks later, over a network that brings no blob, sees the preview in the picture's shape.
  const other = await scene.visit(WIDE);
  await other.context.route(/\/api\/v\d\/canister\/.*\/query$/, async (route) => {
    const isRead = route.request().postDataBuffer()?.includes("read_chunk");
    await (isRead ? new Promise(() => {}) : route.continue());
  });
  await other.page.getByLabel("Your name").fill("Lise");
  await other.page.getByRole("button", { name: "Enter" }).click();
  await other.page.waitForSelector(".app");
  await other.page.evaluate((hash) => void (location.hash = hash), await inviteTo(page));
  await other.page.getByRole("main").getByRole("button", { name: "Join" }).click();
  await other.page.waitForSelector('stored-image[state="loading"]');
  const { seen, box } = await other.page.evaluate(() => {
    const preview = document.querySelector<HTMLImageElement>(".preview");
    const { width = 0, height = 1 } = document.querySelector(".media")?.getBoundingClientRect() ?? {};
    return { seen: preview?.naturalWidth ?? 0, box: width / height };
  });
  assert.ok(seen > 10, `a preview ${seen} pixels wide`);
  assert.ok(Math.abs(box - 2) < 0.1, `a box of ${box}`);
  assert.deepEqual(errors, []);
  await context.close();
  await other.context.close();
});

test("an upload pauses, goes on, outlives a reload, and sends only what is missing over a network that drops", async () => {
  const { page, context, asked } = await scene.enter("Lin");
  await newRoom(page, "Slow");
  const size = 24 * MB;
  const path = await scene.file("large.bin", noise(size));
  // It cannot end before the page has gone.
  proxy.faults = { bytesPerSecond: 6 * MB, bytesUpMax: proxy.bytesUp + 0.9 * size };
  await page.setInputFiles("#files", path);
  await page.getByRole("button", { name: "Pause large.bin" }).click();
  await page.locator('[data-stage="paused"]').waitFor();
  await page.getByRole("button", { name: "Resume large.bin" }).click();
  await arrived(scene, page, 0.15 * size);
  const address = page.url();
  await page.goto("about:blank");
  proxy.faults = {};
  await page.goto(address);
  await page.getByRole("region", { name: "Unfinished uploads" }).waitFor();
  assert.deepEqual(asked, ["beforeunload"]);

  // Another file is recognised as another.
  await page.getByLabel("Choose file large.bin").setInputFiles(await scene.file("other.bin", noise(1_000)));
  await page.getByRole("alert").getByText("This is another file").waitFor();

  proxy.faults = { dropRate: 0.2 };
  const before = proxy.bytesUp;
  await page.getByLabel("Choose file large.bin").setInputFiles(path);
  await post(page, "large.bin").waitFor();
  proxy.faults = {};
  assert.ok(proxy.bytesUp - before < 0.9 * size, `${proxy.bytesUp - before} of ${size} bytes went again`);
  assert.equal(await page.getByRole("region", { name: "Unfinished uploads" }).count(), 0);
  await context.close();
});

test("what is left of an earlier visit goes on wherever its file is chosen, also in a folder that is dropped", async () => {
  const { page, context } = await scene.enter("Grete");
  await newRoom(page, "Later");
  const size = 24 * MB;
  const folder = await scene.folder("album");
  const path = await scene.file("album/large.bin", noise(size));
  await scene.file("album/small.bin", noise(1_000));
  proxy.faults = { bytesPerSecond: 6 * MB, bytesUpMax: proxy.bytesUp + 0.9 * size };
  await page.setInputFiles("#files", path);
  await arrived(scene, page, 0.15 * size);
  assert.match(await page.title(), /^\d+ % · Later · /);
  const address = page.url();
  await page.goto("about:blank");
  proxy.faults = {};
  await page.goto(address);
  await page.getByRole("region", { name: "Unfinished uploads" }).waitFor();
  const before = proxy.bytesUp;
  await dropFiles(page, ".scroll", [folder]);
  await page.waitForFunction(() => document.querySelectorAll(".post").length === 2 && !document.querySelector(".uploads"));
  // Where each file was, is said.
  assert.deepEqual(await page.locator(".post .text").allTextContents(), ["album/", "album/"]);
  assert.ok(proxy.bytesUp - before < 0.9 * size, `${proxy.bytesUp - before} of ${size} bytes went again`);
  assert.equal(await page.getByRole("region", { name: "Unfinished uploads" }).count(), 0);
  assert.match(await page.title(), /^Later · /);
  await context.close();
});

test("a browser that keeps nothing shows and sends all the same", async () => {
  const context = await scene.browser.newContext();
  await context.addInitScript("IDBFactory.prototype.open = () => { throw new DOMException('denied', 'SecurityError'); }");
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(scene.url);
  await page.getByLabel("Your name").fill("Vera");
  await page.getByRole("button", { name: "Enter" }).click();
  await page.waitForSelector(".app");
  await newRoom(page, "Private");
  await page.setInputFiles("#files", [await scene.file("private.bin", noise(3 * MB)), await scene.file("private.bmp", bitmap(90, 60))]);
  await post(page, "private.bin").waitFor();
  await page.waitForSelector('stored-image[state="ready"]');
  await context.close();
});

test("what a network that went away had cut off goes on by itself when it is back", async () => {
  const { page, context } = await scene.enter("Mary");
  await page.clock.install();
  await newRoom(page, "Tunnel");
  await context.route(/\/api\//, (route) => route.abort());
  await page.setInputFiles("#files", await scene.file("tunnel.bin", noise(1_000)));
  const failed = page.locator('[data-stage="failed"]');
  // Longer than patience lasts, in leaps: each lets what waits try again.
  for (let leaps = 0; leaps < 60 && (await failed.count()) === 0; leaps++) {
    await page.clock.fastForward(5_000);
    await page.waitForTimeout(100);
  }
  await failed.getByText("The network does not answer").waitFor();
  await page.getByText("The chat does not answer").waitFor();
  await context.unroute(/\/api\//);
  await post(page, "tunnel.bin").waitFor();
  await context.close();
});

test("what came while nobody looked is shown without a gap, and older messages leave the view where it is", async () => {
  const { page, context } = await scene.enter("Alva", WIDE);
  await newRoom(page, "Busy");
  await page.getByRole("textbox", { name: "Message" }).fill("the first");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".post[data-id]");
  const identity = Ed25519KeyIdentity.fromJSON((await page.evaluate(() => localStorage.getItem("openstorage.identity"))) ?? "");
  const chat = Actor.createActor<Chat>(idlFactory, { agent: await agentOf(network.url, identity), canisterId: network.chat });
  const chat_id = BigInt(/\d+$/.exec(page.url())?.[0] ?? "");
  await context.route(/\/api\//, (route) => route.abort());
  // Four pages: one of the next four rounds asks for the newest page alone.
  const count = 250;
  await Promise.all(Array.from({ length: count }, () => chat.send_message({ chat_id, text: "one of many", blob: [], name: [], preview: [] })));
  await context.unroute(/\/api\//);
  await page.waitForFunction((all) => document.querySelectorAll(".post[data-id]").length === all, count + 1);

  await page.reload();
  const older = page.getByRole("button", { name: "Show older messages" });
  await older.waitFor();
  await page.locator(".scroll").evaluate((list) => void (list.scrollTop = 0));
  const first = await page.locator(".post[data-id]").first().getAttribute("data-id");
  const topOf = () => page.locator(`[data-id="${first}"]`).evaluate((element) => element.getBoundingClientRect().top);
  const before = await topOf();
  await older.click();
  await page.waitForFunction(() => document.querySelectorAll(".post[data-id]").length > 60);
  await page.waitForTimeout(100);
  const moved = (await topOf()) - before;
  assert.ok(Math.abs(moved) < 60, `what was in view moved by ${moved} pixels`);
  await context.close();
});

test("two pages of one user send the same file at once; neither takes the other's for unfinished", async () => {
  const { page, context, errors } = await scene.enter("Maria", WIDE);
  await newRoom(page, "Twice");
  const size = 36 * MB;
  const path = await scene.file("twice.bin", noise(size));
  const second = await context.newPage();
  second.on("dialog", (dialog) => void dialog.accept());
  await second.goto(page.url());
  await second.waitForSelector(".composer");
  // Of six chunks on their way at least one arrives, and all that both send are not the file: neither can end before the
  // third page has looked.
  for (const each of [page, second]) {
    proxy.faults = { bytesPerSecond: 6 * MB, bytesUpMax: proxy.bytesUp + 13 * MB };
    await each.setInputFiles("#files", path);
    await each.waitForFunction(() => (document.querySelector<HTMLProgressElement>(".uploads progress")?.value ?? 0) > 0);
    await each.getByRole("button", { name: "Pause twice.bin" }).click();
    proxy.faults = {};
  }
  const third = await context.newPage();
  await third.goto(page.url());
  await third.getByRole("meter").waitFor();
  assert.equal(await third.getByRole("region", { name: "Unfinished uploads" }).count(), 0);
  // A pause that came late ends with the bytes that the other sends: then there is nothing to resume.
  for (const each of [page, second]) {
    await each.getByRole("button", { name: "Resume twice.bin" }).evaluateAll((buttons: HTMLElement[]) => buttons.forEach((button) => button.click()));
  }
  for (const each of [page, second]) await each.waitForFunction(() => document.querySelectorAll(".post").length === 2 && !document.querySelector(".uploads"));
  // It is stored once, and counted once.
  await page.reload();
  await page.getByRole("meter", { name: /^36 MB of/ }).waitFor();
  assert.equal(await page.getByRole("region", { name: "Unfinished uploads" }).count(), 0);
  assert.deepEqual(errors, []);
  await context.close();
});

test("what is written quickly arrives in order, and comes back where it could not be sent", async () => {
  const { page, context } = await scene.enter("Chien", WIDE);
  await newRoom(page, "Other");
  await newRoom(page, "Quick");
  // Another page looks on, and follows.
  const other = await context.newPage();
  await other.goto(page.url());
  await other.waitForSelector(".composer");
  await page.bringToFront();
  const box = page.getByRole("textbox", { name: "Message" });
  const lines = Array.from({ length: 24 }, (_, i) => `line ${i}`);
  for (const line of lines) {
    await box.fill(line);
    await box.press("Enter");
  }
  await page.waitForFunction((count) => document.querySelectorAll(".post[data-id]").length === count, lines.length);
  const texts = await page.locator(".post[data-id] .text").allTextContents();
  assert.deepEqual(texts, lines);
  // The end stays in view when the window changes, until the user goes away from it.
  await page.setViewportSize({ width: 360, height: 420 });
  const isAtEnd = (seen = page) =>
    seen.waitForFunction(() => {
      const list = document.querySelector(".scroll");
      return list && list.scrollHeight - list.scrollTop - list.clientHeight < 2;
    });
  await isAtEnd();
  await other.waitForFunction((count) => document.querySelectorAll(".post[data-id]").length === count, lines.length);
  await isAtEnd(other);
  await page.locator(".scroll").evaluate((list) => void (list.scrollTop = 0));
  await page.getByRole("button", { name: "To the newest message" }).click();
  await isAtEnd();
  await page.getByRole("button", { name: "To the newest message" }).waitFor({ state: "hidden" });

  // Nothing that was written is lost, nor turned round, in another room neither.
  await context.route(/\/api\/v\d\/canister\/.*\/call$/, (route) => route.abort());
  for (const line of ["first", "second"]) {
    await box.fill(line);
    await box.press("Enter");
  }
  await box.fill("third");
  await page.getByRole("alert").getByText("The network does not answer").waitFor();
  assert.equal(await box.inputValue(), "first\nsecond\nthird");
  await context.unrouteAll({ behavior: "ignoreErrors" });
  await page.evaluate(() => history.back());
  await page.getByRole("heading", { name: "Other", level: 2 }).waitFor();
  // What went wrong in the one is not told in the other.
  assert.equal(await page.getByRole("alert").count(), 0);
  assert.equal(await box.inputValue(), "");
  await page.evaluate(() => history.forward());
  await page.getByRole("heading", { name: "Quick", level: 2 }).waitFor();
  assert.equal(await box.inputValue(), "first\nsecond\nthird");
  await context.close();
});

test("text runs in the direction of its script, addresses are links, and what cannot be shown says what to do", async () => {
  const { page, context } = await scene.enter("Noa", NARROW);
  await newRoom(page, "Scripts");
  const box = page.getByRole("textbox", { name: "Message" });
  await box.fill("שלום, ראו https://example.org/a_(b)?c=d.");
  await box.press("Enter");
  const link = page.locator(".post[data-id]").getByRole("link");
  await link.waitFor();
  assert.equal(await link.getAttribute("href"), "https://example.org/a_(b)?c=d");
  assert.equal(await link.getAttribute("rel"), "noopener noreferrer");
  assert.equal(await page.locator(".post .text").evaluate((text) => getComputedStyle(text).direction), "rtl");
  await page.setInputFiles("#files", await scene.file("broken.png", noise(4_000)));
  await post(page, "broken.png").getByText("It cannot be shown here").waitFor();
  await post(page, "broken.png").getByRole("button", { name: "Try again" }).click();
  await post(page, "broken.png").getByText("It cannot be shown here").waitFor();
  await assertNotWide(page);
  await context.close();
});

test("a message whose answer is lost is looked for, and not posted twice", async () => {
  const { page, context } = await scene.enter("Sofia");
  await newRoom(page, "Echo");
  // The chat does what it is asked, and nobody hears of it: neither the agent, which asks again, nor the page.
  let lost = 0;
  await context.route(/\/api\/v\d\/canister\/.*\/call$/, async (route) => {
    const request = route.request();
    if (!request.postDataBuffer()?.includes("send_message")) return route.continue();
    await route.fetch({ url: network.url + new URL(request.url()).pathname });
    lost++;
    return route.abort();
  });
  await page.setInputFiles("#files", await scene.file("once.bin", noise(1_000)));
  await page.waitForFunction(() => document.querySelector(".post") && !document.querySelector(".uploads"));
  assert.ok(lost > 0);
  await context.unrouteAll({ behavior: "ignoreErrors" });
  await page.reload();
  await post(page, "once.bin").waitFor();
  assert.equal(await post(page, "once.bin").count(), 1);
  await context.close();
});

test("a full allowance says what is full and what to do, and gives way to more", async () => {
  const { page, context } = await scene.enter("Rosa");
  await newRoom(page, "Full");
  await page.setInputFiles("#files", await scene.file("first.bin", noise(3 * MB)));
  await post(page, "first.bin").waitFor();
  const identity = Ed25519KeyIdentity.fromJSON((await page.evaluate(() => localStorage.getItem("openstorage.identity"))) ?? "");
  await network.setLimit({ identity }, 5 * MB);
  await page.setInputFiles("#files", [await scene.file("second.bin", noise(4 * MB)), await scene.file("third.bin", noise(9 * MB))]);
  for (const [name, said] of [["second.bin", /full: 3 MB of 5 MB are used/], ["third.bin", /larger than your whole storage of 5 MB/]] as const) {
    const failed = page.locator('[data-stage="failed"]', { hasText: name });
    const words = await failed.getByRole("alert").textContent();
    assert.match(words ?? "", said);
    await failed.getByRole("button", { name: "Get 10 GB" }).waitFor();
  }
  // The side shows what is true now.
  await page.getByRole("meter", { name: "3 MB of 5 MB used" }).waitFor();
  // The operator gives more, and Retry is enough; then the user takes more.
  await network.setLimit({ identity }, 14 * MB);
  await page.locator('[data-stage="failed"]', { hasText: "third.bin" }).getByRole("button", { name: "Retry" }).click();
  await post(page, "third.bin").waitFor();
  await page.locator('[data-stage="failed"]').getByRole("button", { name: "Get 10 GB" }).click();
  await post(page, "second.bin").waitFor();
  await page.getByRole("meter", { name: "16 MB of 10.7 GB used" }).waitFor();
  // There is no more to get.
  await network.setLimit({ identity }, 20 * MB);
  await page.setInputFiles("#files", await scene.file("fourth.bin", noise(5 * MB)));
  await page.locator('[data-stage="failed"]').getByText("full: 16 MB of 20 MB are used").waitFor();
  await page.getByRole("meter", { name: "16 MB of 20 MB used" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "Get 10 GB" }).count(), 0);

  // What the operator has fixed, nobody gets more of.
  const other = await scene.enter("Clara");
  const fixed = Ed25519KeyIdentity.fromJSON((await other.page.evaluate(() => localStorage.getItem("openstorage.identity"))) ?? "");
  await network.setLimit({ identity: fixed }, 5 * MB, { isFixed: true });
  await other.page.getByRole("button", { name: "Get 10 GB" }).click();
  await other.page.getByRole("alert").getByText("set by the operator").waitFor();
  await other.page.getByRole("meter", { name: "0 B of 5 MB used" }).waitFor();
  assert.equal(await other.page.getByRole("button", { name: "Get 10 GB" }).count(), 0);
  await other.context.close();
  await context.close();
});

test("what was cancelled is given back, the rest goes on, and a network that is gone is told of", async () => {
  const { page, context } = await scene.enter("Emmy");
  await newRoom(page, "Patience");
  proxy.faults = { bytesPerSecond: 1 * MB };
  const names = ["one.bin", "two.bin", "three.bin"];
  await page.setInputFiles("#files", await Promise.all(names.map((name) => scene.file(name, noise(5 * MB)))));
  const all = page.getByRole("group", { name: "All uploads" });
  await all.getByRole("button", { name: "Pause all" }).click();
  await page.waitForFunction(() => document.querySelectorAll('[data-stage="paused"]').length === 3);
  await page.getByRole("button", { name: "Cancel two.bin" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".uploads li").length === 2);
  proxy.faults = {};
  await all.getByRole("button", { name: "Resume all" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".post").length === 2 && !document.querySelector(".uploads"));
  await page.getByRole("meter", { name: /^10 MB of/ }).waitFor();

  // A network that takes no calls is told of, until it does.
  await context.route(/\/api\//, (route) => route.abort());
  await page.getByText("The chat does not answer").waitFor();
  await context.unroute(/\/api\//);
  await page.getByText("The chat does not answer").waitFor({ state: "hidden" });
  await context.close();
});

/** What a page has asked buckets for, from now on: the method and the address of each read of a blob's bytes. */
function readsOf(context: BrowserContext): string[] {
  const reads: string[] = [];
  context.on("request", (request) => {
    const isCall = request.postDataBuffer()?.includes("read_chunk") ?? false;
    const isLink = /[?&]token=/.test(request.url());
    if (isCall || isLink) reads.push(`${request.resourceType()} ${request.url()}`);
  });
  return reads;
}

test("the sender loads nothing that it has, and others load what they come near", async () => {
  const { page, context, errors } = await scene.enter("Berenice", WIDE);
  const own = readsOf(context);
  await newRoom(page, "Album");
  const count = 24;
  const pictures = await Promise.all(Array.from({ length: count }, (_, i) => scene.file(`picture-${i}.bmp`, bitmap(300, 200))));
  await page.setInputFiles("#files", [...pictures, await scene.file("tone.wav", wav(2)), await scene.file("film.mp4", await mp4Film(context, 3))]);
  await page.waitForFunction((all) => document.querySelectorAll(".post").length === all && !document.querySelector(".uploads"), count + 2);
  const seen = (page: Page) => page.locator('stored-image[state="ready"]').count();
  const scrollThrough = async (page: Page) => {
    const list = page.locator(".scroll");
    const steps = await list.evaluate(({ scrollHeight, clientHeight }) => Math.ceil(scrollHeight / clientHeight));
    for (let step = steps; step >= 0; step--) {
      await list.evaluate((element, at) => void (element.scrollTop = at * element.clientHeight), step);
      await page.waitForTimeout(150);
    }
  };
  await scrollThrough(page);
  await page.waitForFunction((all) => document.querySelectorAll('stored-image[state="ready"]').length === all, count);
  assert.deepEqual(own, [], "the sender loads its own files");
  await page.reload();
  await page.waitForSelector('stored-image[state="ready"]');
  await scrollThrough(page);
  await page.waitForFunction((all) => document.querySelectorAll('stored-image[state="ready"]').length === all, count);
  assert.deepEqual(own, [], "the sender loads its own files once more");

  const other = await scene.visit(NARROW, await inviteTo(page));
  const reads = readsOf(other.context);
  await other.page.getByLabel("Your name").fill("Caroline");
  await other.page.getByRole("button", { name: "Enter" }).click();
  await other.page.waitForSelector(`.post >> nth=${count}`);
  await other.page.waitForSelector('stored-image[state="ready"]');
  await other.page.waitForTimeout(1_000);
  assert.ok((await seen(other.page)) < count / 2, `${await seen(other.page)} pictures are loaded at once`);
  assert.ok(reads.length < count, `${reads.length} reads`);
  await scrollThrough(other.page);
  await other.page.waitForFunction((all) => document.querySelectorAll('stored-image[state="ready"]').length === all, count);
  assert.deepEqual([...errors, ...other.errors], []);
  await context.close();
  await other.context.close();
});

test("nothing that is written is wider than the page", async () => {
  for (const screen of [NARROW, WIDE]) {
    const { page, context } = await scene.enter(`${"W".repeat(29)}.`, screen);
    await newRoom(page, "x".repeat(60));
    const box = page.getByRole("textbox", { name: "Message" });
    for (const text of [`https://example.org/${"a".repeat(300)}`, "b".repeat(3_000), `look: https://example.org/?q=${"%20".repeat(200)} !`]) {
      await box.fill(text);
      const send = page.getByRole("button", { name: "Send" });
      const { x = 0, width = Infinity } = (await send.boundingBox()) ?? {};
      assert.ok(x + width <= screen.viewport.width, `Send ends at ${x + width}`);
      await assertNotWide(page);
      await box.press("Enter");
      await page.locator(".post[data-id]", { hasText: text.slice(0, 40) }).waitFor();
      const right = await page.locator(".bubble").evaluateAll((all) => Math.max(...all.map((one) => one.getBoundingClientRect().right)));
      assert.ok(right <= screen.viewport.width, `a message ends at ${right}`);
      await assertNotWide(page);
    }
    await context.close();
  }
});

test("Back closes what is open above the room, and only then leaves it", async () => {
  const { page, context, errors } = await scene.enter("Dorothea", NARROW);
  await newRoom(page, "Gallery");
  await page.setInputFiles("#files", await scene.file("view.bmp", bitmap(300, 200)));
  await page.waitForSelector('.post stored-image[state="ready"]');
  const heading = page.getByRole("heading", { name: "Gallery", level: 2 });
  const opened = async () => {
    await page.getByRole("button", { name: "Open picture: view.bmp" }).click();
    await page.waitForSelector('dialog stored-image[state="ready"]');
  };
  for (let times = 0; times < 2; times++) {
    await opened();
    await page.goBack();
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    await heading.waitFor();
  }
  // Closed otherwise, it leaves nothing for Back to close.
  await opened();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.waitForFunction(() => !history.state?.dialog);
  await page.goBack();
  await heading.waitFor({ state: "hidden" });
  assert.deepEqual(errors, []);
  await context.close();
});

test("a room is joined by its link alone; a new link ends the old one, and members are listed", async () => {
  const { page, context } = await scene.enter("Elise", WIDE);
  await newRoom(page, "Closed");
  const address = new URL(page.url()).hash;
  const link = await inviteTo(page);
  assert.match(link, /^#\/room\/\d+\/[0-9a-f]{32}$/);
  assert.ok(link.startsWith(`${address}/`), "the address of the room holds no invitation");

  // Who has only the address is told what to do; who guesses is refused.
  const other = await scene.enter("Fanny", NARROW, address);
  await other.page.getByText("Ask one of its members for the link").waitFor();
  await other.page.getByRole("link", { name: "Rooms" }).click();
  const field = other.page.getByLabel("Link to a room");
  for (const [pasted, said] of [["17", "no link to a room"], [`${address}/${"0".repeat(32)}`, "This link does not work"]] as const) {
    await field.fill(pasted);
    await other.page.getByRole("button", { name: "Join" }).click();
    await other.page.getByRole("alert").getByText(said).waitFor();
  }
  await page.getByRole("button", { name: "Members" }).click();
  const dialog = page.getByRole("dialog", { name: "Members" });
  await dialog.getByRole("button", { name: "New link" }).click();
  await page.waitForFunction((old) => !document.querySelector<HTMLInputElement>("dialog input")?.value.endsWith(old), link);
  await page.keyboard.press("Escape");
  const renewed = await inviteTo(page);
  await field.fill(`${scene.url}${link}`);
  await other.page.getByRole("button", { name: "Join" }).click();
  await other.page.getByRole("alert").getByText("This link does not work").waitFor();
  await field.fill(` ${scene.url}${renewed} `);
  await other.page.getByRole("button", { name: "Join" }).click();
  await other.page.getByRole("heading", { name: "Closed", level: 2 }).waitFor();
  // Whoever copies the address hands on no invitation.
  assert.equal(new URL(other.page.url()).hash, address);
  await other.page.getByRole("button", { name: "Members" }).click();
  const listed = other.page.getByRole("dialog", { name: "Members" });
  await listed.getByText("Elise").waitFor();
  assert.equal(await listed.getByRole("listitem").count(), 2);
  assert.equal(await listed.getByRole("button", { name: "New link" }).count(), 0);
  await context.close();
  await other.context.close();
});

test("a room that is deleted leaves the view and the list of those who look at it, who are told why", async () => {
  const { page, context } = await scene.enter("Gerda", WIDE);
  await newRoom(page, "Passing");
  const other = await scene.enter("Hilma", WIDE, await inviteTo(page));
  await other.page.getByRole("heading", { name: "Passing", level: 2 }).waitFor();
  await page.getByRole("button", { name: "Delete room" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete room" }).click();
  await other.page.getByText("This room was deleted").waitFor();
  await other.page.getByRole("heading", { name: "Passing", level: 2 }).waitFor({ state: "hidden" });
  assert.equal(await other.page.getByRole("link", { name: "Passing" }).count(), 0);
  // It has answered: the network is not to blame.
  await other.page.waitForTimeout(6_000);
  assert.equal(await other.page.getByText("The chat does not answer").count(), 0);
  await context.close();
  await other.context.close();
});

test("signing out asks first, and then leaves neither the key nor what was loaded", async () => {
  const { page, context } = await scene.enter("Ida", WIDE);
  await newRoom(page, "Desk");
  await page.setInputFiles("#files", await scene.file("desk.bmp", bitmap(300, 200)));
  await page.waitForSelector('.post stored-image[state="ready"]');
  const second = await context.newPage();
  await second.goto(page.url());
  await second.waitForSelector(".composer");
  const kept = () =>
    page.evaluate(async () => {
      const db = await new Promise<IDBDatabase>((resolve, reject) => {
        const opening = indexedDB.open("openstorage");
        opening.onsuccess = () => resolve(opening.result);
        opening.onerror = () => reject(opening.error);
      });
      const stores = ["cache-bytes", "cache-entries", "cache-keys"];
      const reading = db.transaction(stores);
      const counts = stores.map(
        (name) =>
          new Promise<number>((resolve) => {
            const counting = reading.objectStore(name).count();
            counting.onsuccess = () => resolve(counting.result);
          }),
      );
      const sum = (await Promise.all(counts)).reduce((all, count) => all + count, 0);
      db.close();
      return { rows: sum, words: Object.keys(localStorage).length };
    });
  assert.ok((await kept()).rows >= 3);
  const out = page.getByRole("button", { name: "Sign out" }).first();
  await out.click();
  await page.getByRole("dialog").getByText("the only copy").waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.ok((await kept()).words >= 2);
  await out.click();
  await page.getByRole("dialog").getByRole("button", { name: "Sign out" }).click();
  for (const each of [page, second]) await each.getByLabel("Your name").waitFor();
  assert.deepEqual(await kept(), { rows: 0, words: 0 });
  await context.close();
});

test("sounds have a player, and what browsers do not show says so", async () => {
  const { page, context } = await scene.enter("Jenny", WIDE);
  await newRoom(page, "Sounds");
  await page.setInputFiles("#files", [await scene.file("tone.wav", wav(30)), await scene.file("photo.heic", noise(4_000))]);
  await post(page, "tone.wav").waitFor();
  const other = await scene.enter("Fanny", NARROW, await inviteTo(page));
  for (const each of [page, other.page]) {
    await each.waitForSelector('stored-audio[state="ready"]');
    const time = await each.evaluate(async () => {
      const sound = document.querySelector("stored-audio")?.shadowRoot?.querySelector("audio");
      if (!sound) throw new Error("no sound");
      const seeked = new Promise((resolve) => sound.addEventListener("seeked", resolve, { once: true }));
      sound.currentTime = 20;
      await seeked;
      return [sound.currentTime, Math.round(sound.duration)];
    });
    assert.deepEqual(time, [20, 30]);
  }
  const photo = post(page, "photo.heic");
  await photo.getByText("Most browsers cannot show HEIC pictures").waitFor();
  assert.equal(await photo.locator("stored-image").count(), 0);
  await photo.getByRole("button", { name: "Show it here" }).click();
  await photo.getByText("It cannot be shown here").waitFor();
  await assertNotWide(other.page);
  await context.close();
  await other.context.close();
});

test("what one page has finished no other page lists as unfinished", async () => {
  const { page, context } = await scene.enter("Karin", WIDE);
  await newRoom(page, "Desks");
  const size = 12 * MB;
  const path = await scene.file("shared.bin", noise(size));
  proxy.faults = { bytesPerSecond: 6 * MB, bytesUpMax: proxy.bytesUp + 0.9 * size };
  await page.setInputFiles("#files", path);
  await arrived(scene, page, 0.15 * size);
  const address = page.url();
  await page.goto("about:blank");
  proxy.faults = {};
  const second = await context.newPage();
  for (const each of [page, second]) {
    await each.goto(address);
    await each.getByRole("region", { name: "Unfinished uploads" }).waitFor();
  }
  await page.getByLabel("Choose file shared.bin").setInputFiles(path);
  await post(page, "shared.bin").waitFor();
  for (const each of [page, second]) await each.getByRole("region", { name: "Unfinished uploads" }).waitFor({ state: "hidden" });
  await context.close();
});

test("another device lists what is unfinished with the storage that it holds, and gives it up", async () => {
  const { page, context } = await scene.enter("Lise", WIDE);
  await newRoom(page, "Luggage");
  const size = 12 * MB;
  proxy.faults = { bytesPerSecond: 6 * MB, bytesUpMax: proxy.bytesUp + 0.9 * size };
  await page.setInputFiles("#files", await scene.file("luggage.bin", noise(size)));
  await arrived(scene, page, 0.15 * size);
  const address = page.url();
  await page.goto("about:blank");
  proxy.faults = {};
  // The same user elsewhere: the key came along, what the browser remembers of uploads did not.
  const elsewhere = await scene.browser.newContext({ ...NARROW, storageState: await context.storageState() });
  const other = await elsewhere.newPage();
  other.setDefaultTimeout(60_000);
  await other.goto(address);
  const list = other.getByRole("region", { name: "Unfinished uploads" });
  await list.getByText("File from another device").waitFor();
  await other.goto(`${address.split("#")[0]}#`);
  await other.getByRole("meter", { name: /MB held by unfinished uploads$/ }).waitFor();
  await list.getByRole("button", { name: "Discard" }).waitFor({ state: "hidden" });
  await other.goto(address);
  await list.getByRole("button", { name: "Discard" }).click();
  await list.waitFor({ state: "hidden" });
  await other.goto(`${address.split("#")[0]}#`);
  await other.getByRole("meter", { name: /^0 B of 1\.1 GB used$/ }).waitFor();
  await context.close();
  await elsewhere.close();
});
