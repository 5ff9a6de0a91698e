/**
 * The chat's page for everybody: axe-core finds nothing serious in any of its states, light and dark, on a wide
 * screen and a narrow one; and whoever has no mouse can do all of it.
 */

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";

import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import axe from "axe-core";
import type { Page } from "playwright-core";

import { arrived, bitmap, inviteTo, MB, newRoom, noise, post, Scene, wav } from "./scene.js";

const scene = await Scene.start();
const { network, proxy } = scene;
after(() => scene.stop());

const SCREENS = { wide: { width: 1440, height: 900 }, narrow: { width: 360, height: 780 } };
const GRAVE = ["serious", "critical"];
/** Names a folder for pictures of what was looked at. */
const SHOTS = process.env["SCREENSHOT_DIR"];

/** The side of what a finger hits. */
const FINGER_PX = 44;

/** What is to be tapped and is smaller. Links within a text are as high as its lines. */
function smallTargets(side: number): string[] {
  const all = [...document.querySelectorAll<HTMLElement>("button, a:not(.text a), label.button, input:not(.hidden), textarea")];
  const small = all.filter((element) => {
    const { width, height } = element.getBoundingClientRect();
    return width > 0 && (width < side - 0.5 || height < side - 0.5);
  });
  return small.map((element) => `${element.outerHTML.slice(0, 120)} ${element.getBoundingClientRect().width} × ${element.getBoundingClientRect().height}`);
}

/** Looks at a state of the page in every scheme and on every screen. */
async function look(page: Page, state: string): Promise<void> {
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    for (const [screen, size] of Object.entries(SCREENS)) {
      await page.setViewportSize(size);
      if (SHOTS) {
        await mkdir(SHOTS, { recursive: true });
        await page.screenshot({ path: join(SHOTS, `${state}-${screen}-${colorScheme}.png`) });
      }
      const { violations } = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
      const grave = violations.filter(({ impact }) => GRAVE.includes(impact ?? ""));
      const found = grave.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("\n")}`);
      assert.deepEqual(found, [], `${state}, ${screen}, ${colorScheme}`);
      const isWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      assert.equal(isWide, false, `${state}, ${screen}: the page scrolls sideways`);
      if (screen === "narrow") assert.deepEqual(await page.evaluate(smallTargets, FINGER_PX), [], `${state}: too small for a finger`);
    }
  }
  await page.setViewportSize(SCREENS.wide);
}

test("axe-core finds nothing serious in any state of the page", async () => {
  const { page, context } = await scene.visit();
  // Below the page's policy, which would not run it.
  await page.evaluate(axe.source);
  await look(page, "welcome");
  await page.getByLabel("Your name").fill("Ada");
  await page.getByRole("button", { name: "Enter" }).click();
  await page.waitForSelector(".app");
  await look(page, "no-room");
  await newRoom(page, "A lighthouse with a rather long name");
  await newRoom(page, "Lighthouses");
  await look(page, "empty");

  await page.getByRole("textbox", { name: "Message" }).fill("Off Ushant, this morning.\nThe fog came an hour later.");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".post");
  const files = [await scene.file("la-jument.bmp", bitmap(900, 600)), await scene.file("a-log-with-a-very-long-name-that-does-not-fit-in-any-line-of-a-phone.txt", noise(12_345))];
  await page.setInputFiles("#files", files);
  await post(page, "a-log").waitFor();
  await page.waitForSelector('stored-image[state="ready"]');
  const other = await scene.enter("Grace", {}, await inviteTo(page));
  await other.page.waitForSelector(".post");
  await other.page.getByRole("textbox", { name: "Message" }).fill("What a picture!");
  await other.page.keyboard.press("Enter");
  await page.getByText("What a picture!").waitFor();
  await other.context.close();
  await look(page, "messages");
  await page.setInputFiles("#files", [await scene.file("foghorn.wav", wav(3)), await scene.file("photo.heic", noise(500))]);
  await post(page, "photo.heic").waitFor();
  await page.waitForSelector('stored-audio[state="ready"]');
  await page.getByRole("textbox", { name: "Message" }).fill(`https://example.org/${"a".repeat(300)}`);
  await look(page, "kinds");
  await page.getByRole("textbox", { name: "Message" }).fill("");
  await page.getByRole("button", { name: "Members" }).click();
  await look(page, "members");
  await page.keyboard.press("Escape");

  await post(page, "la-jument").hover();
  await post(page, "la-jument").getByRole("button", { name: "Forward" }).click();
  await look(page, "forward");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Open picture: la-jument.bmp" }).click();
  await page.waitForSelector('dialog stored-image[state="ready"]');
  await look(page, "picture");
  await page.keyboard.press("Escape");
  await post(page, "la-jument").getByRole("button", { name: "Delete" }).click();
  await look(page, "asking");
  await page.keyboard.press("Escape");

  const identity = Ed25519KeyIdentity.fromJSON((await page.evaluate(() => localStorage.getItem("openstorage.identity"))) ?? "");
  await network.setLimit({ identity }, 20 * MB);
  proxy.faults = { bytesPerSecond: 1 * MB };
  const many = [["pilots-guide.pdf", noise(14 * MB)], ["storm.bmp", bitmap(1_200, 800)], ["whole-archive.zip", noise(40 * MB)]] as const;
  await page.setInputFiles("#files", await Promise.all(many.map(([name, bytes]) => scene.file(name, bytes))));
  await page.getByRole("button", { name: "Pause storm.bmp" }).click();
  await page.locator('[data-stage="failed"]').waitFor();
  // One chunk has arrived: there is something to go on with later.
  await arrived(scene, page, 1);
  proxy.faults = { bytesPerSecond: 0.1 * MB };
  await look(page, "uploads");
  const room = page.url();
  await page.goto("about:blank");
  proxy.faults = {};
  await page.goto(room);
  await page.getByRole("region", { name: "Unfinished uploads" }).waitFor();
  await page.evaluate(axe.source);
  await context.setOffline(true);
  await page.getByText("The chat does not answer").waitFor();
  await page.getByRole("textbox", { name: "Message" }).fill("Is anybody there?");
  await page.keyboard.press("Enter");
  await look(page, "offline");
  await context.close();
});

/** Moves the focus on by Tab until it is on what has this name. */
async function tabTo(page: Page, name: RegExp, key = "Tab"): Promise<void> {
  for (let steps = 0; steps < 80; steps++) {
    const at = await page.evaluate(() => {
      const element = document.activeElement;
      const label = element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement ? element.labels?.[0]?.textContent : "";
      return element?.getAttribute("aria-label") || label || element?.textContent || "";
    });
    if (name.test(at.trim())) {
      const isSeen = await page.evaluate(() => document.activeElement?.matches(":focus-visible"));
      assert.ok(isSeen, `the focus on ${at} shows`);
      return;
    }
    await page.keyboard.press(key);
  }
  throw new Error(`no way by keyboard to ${name}`);
}

test("a room is made, a file sent, looked at, forwarded and deleted by keyboard alone", async () => {
  const { page, context, errors } = await scene.visit();
  // From now on: a chooser that opens before anybody waits for one is lost.
  const choosing = page.waitForEvent("filechooser");
  await tabTo(page, /^Your name/);
  await page.keyboard.type("Hedy");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".app");
  for (const room of ["Archive", "By hand"]) {
    await tabTo(page, /^Name of the room$/);
    await page.keyboard.type(room);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: room, level: 2 }).waitFor();
  }

  await tabTo(page, /^Attach files$/);
  await page.keyboard.press("Enter");
  await (await choosing).setFiles(await scene.file("beacon.bmp", bitmap(90, 60)));
  await page.waitForSelector('.post stored-image[state="ready"]');

  await tabTo(page, /^Open picture: beacon\.bmp$/, "Shift+Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: /beacon/ }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });

  await tabTo(page, /^Forward$/);
  await page.keyboard.press("Enter");
  await tabTo(page, /Archive$/);
  await page.keyboard.press("Enter");
  await page.getByText("Forwarded to Archive").waitFor();

  await tabTo(page, /^Delete$/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await tabTo(page, /^Delete$/);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".gone");
  // The focus has not fallen out of the page.
  assert.equal(await page.evaluate(() => document.activeElement?.id), "text");
  assert.deepEqual(errors, []);
  await context.close();
});
