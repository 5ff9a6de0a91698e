/** The chat's page as users meet it: deployed canisters, a network that may be bad, a browser, files on a disk. */

import { randomFillSync } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { MemoryResumeStore, OpenStorage } from "@openstorage/client";
import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";

import { agentOf, eventually, Network } from "../network.js";
import { Proxy } from "../proxy.js";
import { launch } from "./page.js";

export const MB = 1_000_000;
/** Five times what the slowest step takes. */
const STEP_MS = 60_000;

/** A page that somebody has entered, and what it complained of. */
export interface Visit {
  readonly context: BrowserContext;
  readonly page: Page;
  readonly errors: string[];
  /** What the browser asked, and was told yes: `beforeunload`. */
  readonly asked: string[];
}

export class Scene {
  private constructor(
    readonly network: Network,
    readonly proxy: Proxy,
    readonly browser: Browser,
    private readonly dir: string,
  ) {}

  static async start(): Promise<Scene> {
    const network = await Network.start();
    const proxy = await Proxy.to(network.url);
    return new Scene(network, proxy, await launch(), await mkdtemp(join(tmpdir(), "openstorage-web-")));
  }

  async stop(): Promise<void> {
    await this.browser.close();
    await this.proxy.stop();
    await this.network.stop();
    await rm(this.dir, { recursive: true });
  }

  /** The page's address, through the proxy. */
  get url(): string {
    return `http://${this.network.chat}.localhost:${new URL(this.proxy.url).port}/`;
  }

  /** A page in a browser of its own, before anybody has said a name. */
  async visit(options: BrowserContextOptions = {}, hash = ""): Promise<Visit> {
    const context = await this.browser.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(STEP_MS);
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (line) => line.type() === "error" && errors.push(line.text()));
    const asked: string[] = [];
    page.on("dialog", (dialog) => {
      asked.push(dialog.type());
      void dialog.accept();
    });
    await page.goto(this.url + hash);
    await page.getByLabel("Your name").waitFor();
    return { context, page, errors, asked };
  }

  async enter(name: string, options: BrowserContextOptions = {}, hash = ""): Promise<Visit> {
    const visit = await this.visit(options, hash);
    await visit.page.getByLabel("Your name").fill(name);
    await visit.page.getByRole("button", { name: "Enter" }).click();
    await visit.page.waitForSelector(".app");
    return visit;
  }

  /** A folder on the disk; its path. */
  async folder(name: string): Promise<string> {
    const path = join(this.dir, name);
    await mkdir(path);
    return path;
  }

  /** A file on the disk; its path. */
  async file(name: string, bytes: Uint8Array): Promise<string> {
    const path = join(this.dir, name);
    await writeFile(path, bytes);
    return path;
  }
}

/**
 * Resolves once so many bytes of a user's unfinished upload have arrived. What the page tells of counts parts of chunks
 * too, which go with the page.
 */
export async function arrived({ network }: Scene, page: Page, bytes: number): Promise<void> {
  const identity = Ed25519KeyIdentity.fromJSON((await page.evaluate(() => localStorage.getItem("openstorage.identity"))) ?? "");
  const agent = await agentOf(network.url, identity);
  const storage = new OpenStorage({ agent, indexCanisterId: network.index, resumeStore: new MemoryResumeStore(), cache: false });
  await eventually(`${bytes} bytes have arrived`, async () => {
    const uploads = await storage.uploads();
    return uploads.some(({ bytesDone }) => bytesDone >= bytes) || undefined;
  });
}

export async function newRoom(page: Page, name: string): Promise<void> {
  await page.getByLabel("Name of the room").fill(name);
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByRole("heading", { name, level: 2 }).waitFor();
}

/** The part of the open room's link that lets others in, as the page's address takes it. */
export async function inviteTo(page: Page): Promise<string> {
  await page.getByRole("button", { name: "Members" }).click();
  const link = await page.getByRole("dialog").getByLabel("Link to this room").inputValue();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  return new URL(link).hash;
}

export async function openRoom(page: Page, name: string): Promise<void> {
  await page.getByRole("link", { name }).click();
  await page.getByRole("heading", { name, level: 2 }).waitFor();
}

/** The message that shows this file, once it is there. */
export function post(page: Page, file: string) {
  return page.locator(".post", { hasText: file });
}

/** A sound of so many seconds that every browser plays: a tone, uncompressed. */
export function wav(seconds: number): Buffer {
  const rate = 8_000;
  const bytes = Buffer.alloc(44 + 2 * rate * seconds);
  bytes.write("RIFF");
  bytes.writeUInt32LE(bytes.byteLength - 8, 4);
  bytes.write("WAVEfmt ", 8);
  bytes.writeUInt32LE(16, 16); // bytes of the format
  bytes.writeUInt16LE(1, 20); // uncompressed
  bytes.writeUInt16LE(1, 22); // channels
  bytes.writeUInt32LE(rate, 24);
  bytes.writeUInt32LE(2 * rate, 28);
  bytes.writeUInt16LE(2, 32); // bytes a sample
  bytes.writeUInt16LE(16, 34); // bits a sample
  bytes.write("data", 36);
  bytes.writeUInt32LE(bytes.byteLength - 44, 40);
  for (let i = 0; i < rate * seconds; i++) bytes.writeInt16LE(Math.round(8_000 * Math.sin((i * 2 * Math.PI * 440) / rate)), 44 + 2 * i);
  return bytes;
}

export function noise(bytes: number): Buffer {
  return randomFillSync(Buffer.alloc(bytes));
}

/** A picture that a browser draws: a ramp with some noise, which no other picture has, as a bitmap. */
export function bitmap(width: number, height: number): Buffer {
  const row = Math.ceil((width * 3) / 4) * 4;
  const bytes = randomFillSync(Buffer.alloc(54 + row * height), 54);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = 54 + y * row + x * 3;
      const grain = (bytes[at] ?? 0) % 24;
      bytes[at] = 60 + (150 * y) / height + grain;
      bytes[at + 1] = 50 + (120 * x) / width + grain;
      bytes[at + 2] = 90 + (100 * (x + y)) / (width + height) + grain;
    }
  }
  bytes.write("BM");
  bytes.writeUInt32LE(bytes.byteLength, 2);
  bytes.writeUInt32LE(54, 10); // where the pixels begin
  bytes.writeUInt32LE(40, 14); // bytes of the header that begins here
  bytes.writeInt32LE(width, 18);
  bytes.writeInt32LE(height, 22);
  bytes.writeUInt16LE(1, 26);
  bytes.writeUInt16LE(24, 28); // bits a pixel
  return bytes;
}

/** Drops files from the disk where the user would: the browser makes the events, as it does for a mouse. */
export async function dropFiles(page: Page, selector: string, files: readonly string[]): Promise<void> {
  const box = await page.locator(selector).boundingBox();
  if (!box) throw new Error(`${selector} is not seen`);
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files: [...files], dragOperationsMask: 1 };
  const at = { x: box.x + box.width / 2, y: box.y + box.height / 2, data };
  for (const type of ["dragEnter", "dragOver", "drop"] as const) await session.send("Input.dispatchDragEvent", { type, ...at });
  await session.detach();
}
