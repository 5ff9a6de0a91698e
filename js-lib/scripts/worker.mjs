// Bundles src/hash-worker.ts into a text that src/platform/worker.ts starts a worker from: so that no
// bundler has to be told about it.

import { mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const { outputFiles } = await build({
  entryPoints: [path("../src/hash-worker.ts")],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  write: false,
  legalComments: "none",
});
const code = outputFiles[0].text;
await mkdir(path("../src/generated"), { recursive: true });
await writeFile(
  path("../src/generated/hash-worker-code.ts"),
  `/** Made by scripts/worker.mjs. */\nexport const HASH_WORKER_CODE: string = ${JSON.stringify(code)};\n`,
);
