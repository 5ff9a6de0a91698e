/**
 * What an ordinary page sees of private media: an `<img>` and a `<video>` with the blob's URL, through the
 * local network's gateway, which verifies what is certified. And what it does not see without a token that is right.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Actor } from "@icp-sdk/core/agent";
import { type BlobReference, referenceToCandid } from "@openstorage/client";
import { type _SERVICE as Chat, type ChatInfo, idlFactory } from "@openstorage/client/candid/chat";
import type { BrowserContext, Page, Request } from "playwright-core";

import { agentOf, eventually, Network, operator, tokenFor, type User } from "../network.js";
import { mp4Film, secondSeen } from "./mp4.js";
import { launch } from "./page.js";

const MB = 1_000_000;
/** Bytes of a part of the certified route. */
const PART = 2 * MB;
/** Makes more than 20 MB. */
const FILM_SECONDS = 60;
const DAY_MS = 24 * 3_600_000;

const network = await Network.start();
const browser = await launch();
after(async () => {
  await browser.close();
  await network.stop();
});

/** A blob in a chat, as the user's page knows it. */
interface Posted {
  readonly user: User;
  readonly chat: ChatInfo;
  readonly messageId: bigint;
  readonly reference: BlobReference;
  readonly url: string;
}

/** Blob URLs as pages build them: the bucket's own host below the gateway's. */
const gateway = `http://localhost:${new URL(network.url).port}`;

async function posted(user: User, chat: ChatInfo, bytes: Uint8Array, mimeType: string): Promise<Posted> {
  const storage = await user.storage({ gateway });
  const data = new Blob([new Uint8Array(bytes)], { type: mimeType });
  const reference = await storage.upload(data, { accessorIds: [chat.accessor_id] }).done;
  const { chat_id } = chat;
  const message = { chat_id, text: "", blob: [referenceToCandid(reference)] as [ReturnType<typeof referenceToCandid>] };
  const sent = await user.chat.send_message({ ...message, name: [], preview: [] });
  if ("Err" in sent) throw new Error(JSON.stringify(sent.Err));
  const { token, accessorId } = await tokenFor(user, chat_id);
  return { user, chat, messageId: sent.Ok.message_id, reference, url: storage.url(reference, accessorId, token) };
}

async function anotherChat({ chat }: User): Promise<ChatInfo> {
  const answer = await chat.create_chat({ name: "another" });
  if ("Err" in answer) throw new Error(JSON.stringify(answer.Err));
  return answer.Ok;
}

/** The routes to a blob: one whose whole parts are certified, and one for ranges alone. */
const CERTIFIED = "";
const RANGES = "/m";
const ROUTES = [CERTIFIED, RANGES];

/** The same under another route, with another token, or none. */
function changed(url: string, { route, token, host = "" }: { route?: string; token?: string | null; host?: string }): string {
  const other = new URL(url);
  if (route !== undefined) other.pathname = route + other.pathname.replace(/^\/m(?=\/)/, "");
  if (token === null) other.searchParams.delete("token");
  else if (token !== undefined) other.searchParams.set("token", token);
  if (host) other.hostname = other.hostname.replace(/^([^.]+)/, `$1${host}`);
  return other.href;
}

function tokenOf(url: string): string {
  return new URL(url).searchParams.get("token") ?? "";
}

/** A page that has nothing, in a browser that remembers nothing. */
async function visitor(): Promise<{ page: Page; context: BrowserContext }> {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  await page.setContent("<!doctype html><body></body>");
  return { page, context };
}

/** The width of the picture that an `<img>` with this URL shows; 0 where it shows nothing. */
async function widthOf(page: Page, url: string): Promise<number> {
  return page.evaluate(async (src) => {
    const image = new Image();
    document.body.replaceChildren(image);
    await new Promise((resolve) => {
      image.onload = image.onerror = resolve;
      image.src = src;
    });
    return image.naturalWidth;
  }, url);
}

/**
 * Puts a `<video>` with this URL on the page; its width, or the number of its error.
 *
 * @param attributes of the element, besides `muted`
 */
async function load(page: Page, url: string, attributes: readonly [string, string][] = []): Promise<{ width: number; error: number }> {
  return page.evaluate(
    async ([src, attributes]) => {
      const video = document.createElement("video");
      video.muted = true;
      for (const [name, value] of attributes) video.setAttribute(name, value);
      document.body.replaceChildren(video);
      await new Promise((resolve) => {
        video.onloadeddata = video.onerror = resolve;
        video.src = src;
      });
      return { width: video.videoWidth, error: video.error?.code ?? 0 };
    },
    [url, attributes] as const,
  );
}

/** In a browser of its own each: a picture that was once seen may be kept. */
async function assertHidden(url: string, why: string): Promise<void> {
  const { page, context } = await visitor();
  assert.equal(await widthOf(page, url), 0, `an image ${why}`);
  await context.close();
}

const NOT_SUPPORTED = 4;

async function assertNotPlayed(url: string, why: string): Promise<void> {
  const { page, context } = await visitor();
  assert.deepEqual(await load(page, url), { width: 0, error: NOT_SUPPORTED }, `a video ${why}`);
  await context.close();
}

let user: User;
let picture: Posted;
let movie: Posted;
let elsewhere: Posted;

before(async () => {
  const { page, context } = await visitor();
  const jpeg = await page.evaluate(async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [321, 123];
    canvas.getContext("2d")?.fillRect(10, 10, 100, 100);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/jpeg"));
    return [...new Uint8Array((await blob?.arrayBuffer()) ?? new ArrayBuffer(0))];
  });
  const mp4 = await mp4Film(context, FILM_SECONDS);
  await context.close();
  const mine = await network.userWithChat();
  user = mine.user;
  picture = await posted(user, mine.chat, Uint8Array.from(jpeg), "image/jpeg");
  movie = await posted(user, mine.chat, mp4, "video/mp4");
  elsewhere = await posted(user, await anotherChat(user), Buffer.from("another chat's"), "text/plain");
});

test("an <img> shows a private JPEG by its token URL, and by no other", async () => {
  const { url } = picture;
  const { page, context } = await visitor();
  const answers: (string | undefined)[] = [];
  page.on("response", (response) => answers.push(response.headers()["x-ic-verified"]));
  assert.equal(await widthOf(page, url), 321);
  assert.deepEqual(answers, ["true"]);
  await context.close();
  await assertHidden(changed(url, { token: null }), "without a token");
  await assertHidden(changed(url, { token: tokenOf(elsewhere.url) }), "with another chat's token");
  await assertHidden(changed(url, { route: RANGES, token: null }), "without a token, by the other route");
  await assertHidden(changed(url, { route: RANGES, token: tokenOf(elsewhere.url) }), "with another chat's token, by the other route");
});

const GIVEN_UP = 0;

/** The ranges that a page asks for, as its requests' headers say. */
function ranges(page: Page): { readonly asked: [from: number, status: number][]; settled(): Promise<void> } {
  const asked: [number, number][] = [];
  const looks: Promise<void>[] = [];
  const look = async (request: Request) => {
    const { range } = await request.allHeaders();
    const from = /^bytes=(\d+)-/.exec(range ?? "")?.[1];
    const response = await request.response();
    asked.push([Number(from), response?.status() ?? GIVEN_UP]);
  };
  // What the page asks for while it is closed is nobody's business.
  page.on("request", (request) => request.resourceType() === "media" && looks.push(look(request).catch(() => {})));
  return { asked, settled: async () => void (await Promise.all(looks)) };
}

/** Lies in the film's second part, so that the player has had to ask for it. */
const PLAYED_SECONDS = 9;

/**
 * Players ask from anywhere. Both routes answer a range with just its bytes, which are parts of no proof. Pages differ in
 * how they ask: with CORS or without, where browsers let media through by its type alone.
 *
 * @returns what the player asked for
 */
async function playsAndSeeks(url: string, attributes: readonly [string, string][] = []): Promise<[number, number][]> {
  const { page, context } = await visitor();
  const log = ranges(page);
  const proofs = new Set<boolean>();
  page.on("response", (response) => {
    // That nothing is certified is proven too, and passed on.
    const { "x-ic-verified": verified, "ic-certificateexpression": expression = "" } = response.headers();
    if (response.status() === 206) proofs.add(verified === "true" && !expression.includes("no_certification"));
  });
  assert.ok(movie.reference.size >= 20 * MB);
  assert.deepEqual(await load(page, url, attributes), { width: 320, error: 0 });
  for (const second of [50, 20, 59, 0, 33]) {
    const now = await page.evaluate(async (time) => {
      const video = document.querySelector("video") as HTMLVideoElement;
      const seeked = new Promise((resolve) => video.addEventListener("seeked", resolve, { once: true }));
      video.currentTime = time;
      await seeked;
      return video.currentTime;
    }, second + 0.5);
    assert.equal(now, second + 0.5);
    assert.equal(await secondSeen(page), second);
  }
  const jumped = log.asked.length;
  await page.evaluate(() => void ((document.querySelector("video") as HTMLVideoElement).currentTime = 0));
  const { frames, duration } = await playOn(page);
  assert.equal(Math.round(duration), FILM_SECONDS);
  assert.ok(frames > 10, `${frames} frames were decoded`);
  assert.ok((await secondSeen(page)) >= PLAYED_SECONDS);
  await page.evaluate(() => document.querySelector("video")?.remove());
  await log.settled();
  // A frame lies about where its time is in the film.
  const far = log.asked.slice(0, jumped).filter(([from, status]) => status === 206 && from > 0.6 * movie.reference.size);
  assert.ok(far.some(([from]) => from % PART !== 0), `no range near the end, in the middle of a part: ${JSON.stringify(log.asked)}`);
  // A player that jumps gives up requests, which then have no answer.
  assert.ok(log.asked.every(([, status]) => [206, GIVEN_UP].includes(status)), JSON.stringify(log.asked));
  assert.deepEqual([...proofs], [false]);
  await context.close();
  return log.asked;
}

test("a plain <video> plays a private MP4 of more than 20 MB by its token URL and seeks in it", async (t) => {
  assert.equal(movie.url, changed(movie.url, { route: RANGES }));
  const asked = await playsAndSeeks(movie.url);
  t.diagnostic(`asked from ${JSON.stringify(asked)}`);
});

test("so does one that asks by CORS", async () => {
  await playsAndSeeks(movie.url, [["crossorigin", "anonymous"], ["preload", "auto"]]);
});

test("a plain <video> plays it by its certified URL too, and seeks in it", async () => {
  await playsAndSeeks(changed(movie.url, { route: CERTIFIED }));
});

/** Plays, at four times the speed, until the second part is seen. */
async function playOn(page: Page): Promise<{ frames: number; duration: number }> {
  await page.evaluate(async () => {
    const video = document.querySelector("video") as HTMLVideoElement;
    video.playbackRate = 4;
    await video.play();
  });
  await page.waitForFunction((seconds) => (document.querySelector("video")?.currentTime ?? 0) > seconds, PLAYED_SECONDS);
  return page.evaluate(() => {
    const video = document.querySelector("video") as HTMLVideoElement;
    video.pause();
    return { frames: video.getVideoPlaybackQuality().totalVideoFrames, duration: video.duration };
  });
}

test("no video without a token, or with another chat's", async () => {
  for (const route of ROUTES) {
    await assertNotPlayed(changed(movie.url, { route, token: null }), `without a token, ${route}`);
    await assertNotPlayed(changed(movie.url, { route, token: tokenOf(elsewhere.url) }), `with another chat's token, ${route}`);
  }
});

test("deleting the message revokes the URL at once, where a day's token would have opened it", async () => {
  const { chat, messageId, reference, url } = await posted(user, await anotherChat(user), await jpegAgain(), "image/jpeg");
  const { page, context } = await visitor();
  assert.equal(await widthOf(page, url), 321);
  await context.close();
  const left = await user.chat.delete_message({ chat_id: chat.chat_id, message_id: messageId });
  assert.ok("Ok" in left && "Delete" in left.Ok);
  const { accessor_id, owner, token } = left.Ok.Delete;
  await (await user.storage()).delete(reference, { accessorId: accessor_id, owner, token });
  await assertHidden(url, "after revocation");
  await assertHidden(changed(url, { route: RANGES }), "after revocation, by the other route");
  // The blob is the one that the first chat shows: it is the reference that went.
  const again = await visitor();
  assert.equal(await widthOf(again.page, picture.url), 321);
  await again.context.close();
});

/** The picture's bytes, as the first chat gives them. */
async function jpegAgain(): Promise<Uint8Array> {
  const { reference, chat, url } = picture;
  const blob = await (await user.storage()).download(reference, { accessorId: chat.accessor_id, token: tokenOf(url) });
  return new Uint8Array(await blob.arrayBuffer());
}

test("revoking the key that the chat's tokens are sealed under closes their URLs; a new key opens again", async () => {
  const agent = await agentOf(network.url, operator);
  const chat = Actor.createActor<Chat>(idlFactory, { agent, canisterId: network.chat });
  const version = async () => (await chat.public_key())[0]?.version ?? 0;
  const old = await version();
  assert.ok("Ok" in (await chat.rotate_key()));
  await eventually("the chat has a new key", async () => (await version()) > old || undefined);
  assert.ok("Ok" in (await chat.revoke_key(old)));
  const opens = async (url: string) => {
    const { page, context } = await visitor();
    const width = await widthOf(page, url);
    await context.close();
    return width > 0;
  };
  await eventually("the bucket has heard of it", async () => !(await opens(picture.url)) || undefined);
  await assertHidden(changed(picture.url, { route: RANGES }), "after the key was revoked");
  await assertNotPlayed(movie.url, "after the key was revoked");
  await eventually("a token under the new key opens", async () => {
    picture = { ...picture, url: await urlNow(picture) };
    return (await opens(picture.url)) || undefined;
  });
  movie = { ...movie, url: await urlNow(movie) };
});

/** The URL with the token that the chat gives at the moment. */
function urlNow({ chat, messageId, url }: Posted): Promise<string> {
  return eventually("the chat gives a token", async () => {
    const answer = await user.chat.messages({ chat_id: chat.chat_id, after: [], before: [], limit: 10 });
    const shown = "Ok" in answer ? answer.Ok.find(({ message_id }) => message_id === messageId) : undefined;
    const token = shown?.blob[0]?.token[0];
    return token === undefined ? undefined : changed(url, { token });
  });
}

// The last: time does not go back.
test("a day later the URL shows nothing, and one with a new token does", async () => {
  // The verifying gateway refuses certificates of tomorrow, whatever the token: here it is to be the token alone.
  const raw = (url: string) => changed(url, { host: ".raw" });
  const before = await visitor();
  assert.equal(await widthOf(before.page, raw(picture.url)), 321);
  await before.context.close();
  await network.skip(DAY_MS + 60_000);
  for (const route of ROUTES) {
    await assertHidden(changed(raw(picture.url), { route }), `after expiry, ${route}`);
    await assertNotPlayed(changed(raw(movie.url), { route }), `after expiry, ${route}`);
  }
  await user.agent.syncTime();
  const fresh = await urlNow(picture);
  assert.notEqual(tokenOf(fresh), tokenOf(picture.url));
  const { page, context } = await visitor();
  assert.equal(await widthOf(page, raw(fresh)), 321);
  await context.close();
});
