// What the library adds to a page, minified and gzipped:  node scripts/size.mjs [--json]
//
//   app      a page that uploads: the library, the agent of @icp-sdk/core, everything they need
//   library  the same without @icp-sdk/core, which an app on the Internet Computer has anyway
//   url      a page that only makes URLs: what tree-shaking leaves
//   elements the elements alone, beside the library
//   hasher   what the library loads later, when it is needed: the WebAssembly hasher of the page itself

import { gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const resolveDir = fileURLToPath(new URL("..", import.meta.url));
const APP = `
  import { HttpAgent } from "@icp-sdk/core/agent";
  import { OpenStorage } from "@openstorage/client";
  const agent = await HttpAgent.create();
  new OpenStorage({ agent, indexCanisterId: "aaaaa-aa" }).upload(new Blob([]), { accessorIds: [] });
`;
const LIBRARY = `export { OpenStorage } from "@openstorage/client";`;
const URL_ONLY = `export { blobUrl } from "@openstorage/client";`;
const ELEMENTS = `export { setStorage } from "@openstorage/client/elements";`;

/** Bytes that are loaded at once, and those that may be loaded later. */
async function gzipBytes(contents, external) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    minify: true,
    splitting: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    external,
    outdir: "out",
    write: false,
    logLevel: "error",
  });
  // The entry and what it imports at once; esbuild names it after stdin.
  const byName = new Map(outputFiles.map((file) => [file.path.split("/").at(-1), file]));
  const seen = new Set();
  const visit = (name) => {
    const file = byName.get(name);
    if (!file || seen.has(name)) return;
    seen.add(name);
    for (const match of file.text.matchAll(/(?:from|import)"\.\/([^"]+)"/g)) visit(match[1]);
  };
  visit("stdin.js");
  const size = { now: 0, later: 0 };
  for (const [name, { contents: bytes }] of byName) {
    size[seen.has(name) ? "now" : "later"] += gzipSync(bytes, { level: 9 }).byteLength;
  }
  return size;
}

export async function sizes() {
  const core = ["@icp-sdk/core/*"];
  const library = await gzipBytes(LIBRARY, core);
  return {
    app: (await gzipBytes(APP, [])).now,
    library: library.now,
    url: (await gzipBytes(URL_ONLY, core)).now,
    elements: (await gzipBytes(ELEMENTS, core)).now,
    hasher: library.later,
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const found = await sizes();
  if (process.argv.includes("--json")) console.log(JSON.stringify(found));
  else for (const [name, bytes] of Object.entries(found)) console.log(`${name.padEnd(10)} ${bytes} bytes gzip`);
}
