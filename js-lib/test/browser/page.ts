/** The plain page of `examples/`, built and served as its README line says, in a Chromium of its own. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { type Browser, chromium } from "playwright-core";

import { packageDir } from "../support.js";

const root = fileURLToPath(packageDir);
const example = join(root, "examples/plain");

/** Names the browser; Debian's is the default. */
const CHROMIUM = process.env["CHROMIUM_BIN"] ?? "/usr/bin/chromium";

const FLAGS = [
  "--no-sandbox",
  "--disable-dev-shm-usage",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
}

/** Bundles the example as its `npm run build` does. Its two packages are those of this checkout. */
export async function build(): Promise<void> {
  const packages = await mkdtemp(join(tmpdir(), "openstorage-packages-"));
  try {
    await mkdir(join(packages, "@openstorage"));
    await symlink(root, join(packages, "@openstorage/client"));
    const args = ["main.js", "--bundle", "--format=esm", "--minify", "--outfile=dist/main.js", "--log-level=warning"];
    const env = { ...process.env, NODE_PATH: packages };
    await promisify(execFile)(join(root, "node_modules/.bin/esbuild"), args, { cwd: example, env });
  } finally {
    await rm(packages, { recursive: true });
  }
}

/** The example's own server. */
export class PageServer {
  private constructor(
    private readonly server: ChildProcess,
    readonly url: string,
  ) {}

  static async start(network: string): Promise<PageServer> {
    const server = spawn(process.execPath, ["serve.mjs", "--port", "0", "--network", network], {
      cwd: example,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const url = await new Promise<string>((resolve, reject) => {
      server.once("exit", (code) => reject(new Error(`the page's server ended with ${code}`)));
      server.stdout?.once("data", (line) => resolve(String(line).trim()));
    });
    return new PageServer(server, url);
  }

  stop(): void {
    this.server.kill();
  }
}
