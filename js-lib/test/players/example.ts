/** The player's page of `examples/`, built as its `npm run build` does, and served. */

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { packageDir } from "../support.js";

const root = fileURLToPath(packageDir);
const example = join(root, "examples/player");
const TYPES: Record<string, string> = { "/index.html": "text/html; charset=utf-8", "/main.js": "text/javascript", "/worker.js": "text/javascript" };

async function build(): Promise<void> {
  const { scripts } = JSON.parse(await readFile(join(example, "package.json"), "utf8")) as { scripts: { build: string } };
  const [program = "", ...args] = scripts.build.split(" ");
  const packages = await mkdtemp(join(tmpdir(), "openstorage-packages-"));
  try {
    await mkdir(join(packages, "@openstorage"));
    await symlink(root, join(packages, "@openstorage/client"));
    const env = { ...process.env, NODE_PATH: packages };
    await promisify(execFile)(join(root, "node_modules/.bin", program), [...args, "--log-level=warning"], { cwd: example, env });
  } finally {
    await rm(packages, { recursive: true });
  }
}

export interface Example {
  readonly url: string;
  /** While it is false the worker's script is missing. */
  hasWorker: boolean;
  stop(): void;
}

export async function serveExample(): Promise<Example> {
  await build();
  const served = { url: "", hasWorker: true, stop: () => void server.close() };
  const server = createServer(async (asked, answer) => {
    const { pathname } = new URL(asked.url ?? "", "http://localhost");
    const path = pathname === "/" ? "/index.html" : pathname;
    const type = path === "/worker.js" && !served.hasWorker ? undefined : TYPES[path];
    if (!type) return void answer.writeHead(404).end();
    answer.writeHead(200, { "content-type": type, "cache-control": "no-store" }).end(await readFile(join(example, "dist", path)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  served.url = `http://localhost:${(server.address() as AddressInfo).port}/`;
  return served;
}
