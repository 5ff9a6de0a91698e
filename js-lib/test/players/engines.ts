/**
 * The three engines that browsers are made of, each driven in its own way: Chromium by its protocol, Firefox by
 * Marionette, which it brings along, WebKit by WebDriver. Each has a profile of its own, and its HTTP cache is on.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

/** What a page may be asked or told: plain data. */
export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [name: string]: Plain };

export interface Engine {
  readonly name: string;
  readonly version: string;
  /** Where what is saved lands, under whatever name, beside other files perhaps. */
  readonly downloads: string;
  visit(url: string): Promise<void>;
  /** Runs `work` in the page. It sees nothing of where it is written but `arg`. */
  run<A extends Plain, R>(work: (arg: A) => R | Promise<R>, arg: A): Promise<R>;
  close(): Promise<void>;
}

/** Of a step in a page; what takes longer is a failure. */
const STEP_MS = 60_000;

const CHROMIUM = process.env["CHROMIUM_BIN"] ?? "/usr/bin/chromium";
const FIREFOX = process.env["FIREFOX_BIN"] ?? "/usr/bin/firefox-esr";
const WEBKIT_DRIVER = process.env["WEBKIT_DRIVER_BIN"] ?? "/usr/bin/WebKitWebDriver";

const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--disable-dev-shm-usage",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--autoplay-policy=no-user-gesture-required",
];

async function chromiumEngine(): Promise<Engine> {
  const profile = await folder("chromium");
  const downloads = join(profile, "saved");
  const context = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: CHROMIUM_FLAGS, downloadsPath: downloads });
  const [page = await context.newPage()] = context.pages();
  page.setDefaultTimeout(STEP_MS);
  const version = context.browser()?.version() ?? "";
  return {
    name: "Chromium",
    version,
    downloads,
    visit: async (url) => void (await page.goto(url)),
    run: (work, arg) => page.evaluate(`(${work})(${JSON.stringify(arg)})`),
    async close() {
      await context.close();
      await removed(profile);
    },
  };
}

/** Autoplay, and nothing that Firefox asks the world by itself. */
const FIREFOX_PREFERENCES = {
  "marionette.port": 0,
  "media.autoplay.default": 0,
  "media.autoplay.blocking_policy": 0,
  "app.update.disabledForTesting": true,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "toolkit.telemetry.reportingpolicy.firstRun": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "media.gmp-manager.updateEnabled": false,
  "media.gmp-provider.enabled": false,
  "services.settings.server": "data:,#",
  "remote.log.level": "Error",
};

async function firefoxEngine(): Promise<Engine> {
  const profile = await folder("firefox");
  const downloads = join(profile, "saved");
  const preferences = { ...FIREFOX_PREFERENCES, "browser.download.folderList": 2, "browser.download.dir": downloads };
  const lines = Object.entries(preferences).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
  await writeFile(join(profile, "user.js"), lines.join(""));
  const args = ["--headless", "--no-remote", "--marionette", "--profile", profile];
  const program = spawn(FIREFOX, args, { stdio: "ignore", env: { ...process.env, MOZ_CRASHREPORTER_DISABLE: "1" } });
  const port = await soon(program, "Firefox listens", async () => Number(await readFile(join(profile, "MarionetteActivePort"), "utf8")));
  const driver = await Marionette.to(port);
  const { capabilities } = (await driver.send("WebDriver:NewSession", {})) as { capabilities: { browserVersion: string } };
  await driver.send("WebDriver:SetTimeouts", { script: STEP_MS, pageLoad: STEP_MS });
  return {
    name: "Firefox",
    version: capabilities.browserVersion,
    downloads,
    visit: async (url) => void (await driver.send("WebDriver:Navigate", { url })),
    async run(work, arg) {
      const answer = (await driver.send("WebDriver:ExecuteAsyncScript", { ...script(work, arg), newSandbox: false, sandbox: null })) as { value: Told<never> };
      return told(answer.value);
    },
    async close() {
      driver.close();
      await ended(program);
      await removed(profile);
    },
  };
}

/** Firefox's own protocol: JSON behind its length, each command answered under its number. */
class Marionette {
  #number = 0;
  #bytes = Buffer.alloc(0);
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();

  private constructor(private readonly socket: Socket) {
    socket.on("data", (piece) => this.#take(piece as Buffer));
    socket.on("close", () => this.#fail(new Error("Firefox hung up")));
    socket.on("error", () => {});
  }

  static async to(port: number): Promise<Marionette> {
    const socket = connect(port, "127.0.0.1");
    await new Promise((resolve, reject) => socket.once("data", resolve).once("error", reject));
    return new Marionette(socket);
  }

  send(command: string, parameters: object): Promise<unknown> {
    const number = ++this.#number;
    const text = JSON.stringify([0, number, command, parameters]);
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      this.socket.write(`${Buffer.byteLength(text)}:${text}`);
    });
  }

  close(): void {
    this.socket.destroy();
  }

  #take(piece: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, piece]);
    for (;;) {
      const colon = this.#bytes.indexOf(":");
      const end = colon + 1 + Number(this.#bytes.toString("latin1", 0, colon));
      if (colon < 0 || this.#bytes.byteLength < end) return;
      const [, number, error, result] = JSON.parse(this.#bytes.toString("utf8", colon + 1, end));
      this.#bytes = this.#bytes.subarray(end);
      const waiting = this.#waiting.get(number);
      this.#waiting.delete(number);
      if (error) waiting?.reject(new Error(`Firefox: ${error.error}: ${error.message}`));
      else waiting?.resolve(result);
    }
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** WebKit draws on a screen; this one is in memory. */
async function webkitEngine(): Promise<Engine> {
  const profile = await folder("webkit");
  const screen = spawn("Xvfb", ["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"], { stdio: ["ignore", "pipe", "ignore"] });
  const display = await new Promise<string>((resolve, reject) => {
    screen.stdout.once("data", (line) => resolve(`:${String(line).trim()}`));
    screen.once("error", reject);
    screen.once("exit", () => reject(new Error("Xvfb does not run")));
  });
  const port = await freePort();
  const env = { ...process.env, DISPLAY: display, HOME: profile, XDG_CACHE_HOME: profile, XDG_DATA_HOME: profile, WEBKIT_DISABLE_COMPOSITING_MODE: "1", LIBGL_ALWAYS_SOFTWARE: "1" };
  const program = spawn(WEBKIT_DRIVER, [`--port=${port}`, "--host=127.0.0.1"], { stdio: "ignore", env });
  const base = `http://127.0.0.1:${port}`;
  await soon(program, "WebKit's driver listens", async () => (await fetch(`${base}/status`)).ok);
  const options = { binary: await miniBrowser(), args: ["--automation", "--autoplay-policy=allow"] };
  const alwaysMatch = { "webkitgtk:browserOptions": options, timeouts: { script: STEP_MS, pageLoad: STEP_MS } };
  const { sessionId, capabilities } = await webdriver<{ sessionId: string; capabilities: { browserVersion: string } }>(`${base}/session`, { capabilities: { alwaysMatch } });
  const session = `${base}/session/${sessionId}`;
  return {
    name: "WebKit",
    version: capabilities.browserVersion,
    // It knows no other place below its home.
    downloads: profile,
    visit: async (url) => void (await webdriver(`${session}/url`, { url })),
    run: async (work, arg) => told(await webdriver(`${session}/execute/async`, script(work, arg))),
    async close() {
      await fetch(session, { method: "DELETE" }).catch(() => {});
      await ended(program);
      await ended(screen);
      await removed(profile);
    },
  };
}

async function webdriver<T>(url: string, body: object): Promise<T> {
  const answer = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  const { value } = (await answer.json()) as { value: T & { error?: string; message?: string } };
  if (!answer.ok) throw new Error(`WebKit: ${value.error}: ${value.message}`);
  return value;
}

/** Debian's lies beside the library that it shows. */
async function miniBrowser(): Promise<string> {
  for (const machine of ["x86_64", "aarch64"]) {
    const path = `/usr/lib/${machine}-linux-gnu/webkit2gtk-4.1/MiniBrowser`;
    if (await readFile(path).then(() => true, () => false)) return path;
  }
  throw new Error("there is no MiniBrowser: install webkit2gtk-driver");
}

type Told<R> = { readonly value: R } | { readonly error: string };

function told<R>(answer: Told<R>): R {
  if ("error" in answer) throw new Error(answer.error);
  return answer.value;
}

function script<A extends Plain, R>(work: (arg: A) => R | Promise<R>, arg: A): { script: string; args: A[] } {
  const text = `const [arg, done] = arguments;
    Promise.resolve(arg).then(${work}).then((value) => done({ value: value === undefined ? null : value }), (error) => done({ error: String(error && error.stack || error) }));`;
  return { script: text, args: [arg] };
}

function folder(name: string): Promise<string> {
  return mkdtemp(join(tmpdir(), `openstorage-${name}-`));
}

/** A program that has just ended may still write. */
async function removed(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true, maxRetries: 10 });
}

async function soon<T>(program: ChildProcess, what: string, look: () => Promise<T>): Promise<T> {
  for (let tries = 0; tries < 300; tries++) {
    if (program.exitCode !== null) throw new Error(`${what}: the program ended with ${program.exitCode}`);
    const seen = await look().catch(() => undefined);
    if (seen) return seen;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`still not so after 30 s: ${what}`);
}

function ended(program: ChildProcess): Promise<void> {
  if (program.exitCode !== null || program.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    program.once("exit", () => resolve());
    program.kill();
    setTimeout(() => program.kill("SIGKILL"), 5_000).unref();
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

export const ENGINES: readonly { readonly name: string; readonly start: () => Promise<Engine> }[] = [
  { name: "Chromium", start: chromiumEngine },
  { name: "Firefox", start: firefoxEngine },
  { name: "WebKit", start: webkitEngine },
];
