// Bundles the page into canisters/chat/app, which the chat embeds and which is committed:
//
//   node scripts/build.mjs           writes it
//   node scripts/build.mjs --check   fails where the folder holds anything else
//
// The same sources make the same bytes: versions are locked, and names carry hashes of content.

import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const web = path("..").replace(/\/$/, "");
const app = path("../../canisters/chat/app");

/** The library is linked from its folder and has a copy of the SDK of its own there: one is enough. */
const oneCore = {
  name: "one-core",
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^@icp-sdk\/core\// }, ({ path: name, kind, resolveDir }) =>
      resolveDir === web ? undefined : resolve(name, { kind, resolveDir: web }),
    );
  },
};

const { outputFiles, metafile } = await build({
  absWorkingDir: web,
  entryPoints: ["src/main.tsx", "src/style.css"],
  bundle: true,
  minify: true,
  splitting: true,
  format: "esm",
  target: ["es2022", "chrome111", "firefox113", "safari16.4"],
  outdir: "out",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  jsx: "automatic",
  jsxImportSource: "preact",
  plugins: [oneCore],
  legalComments: "none",
  metafile: true,
  write: false,
});

const files = new Map(outputFiles.map((file) => [`assets/${basename(file.path)}`, Buffer.from(file.contents)]));
const names = Object.entries(metafile.outputs);
const nameOf = (entry) => `/assets/${basename(names.find(([, output]) => output.entryPoint === entry)[0])}`;
const html = (await readFile(path("../src/index.html"), "utf8"))
  .replace("main.js", nameOf("src/main.tsx"))
  .replace("style.css", nameOf("src/style.css"));
files.set("index.html", Buffer.from(html));
files.set("favicon.svg", await readFile(path("../src/favicon.svg")));

async function present() {
  const entries = await readdir(app, { recursive: true, withFileTypes: true }).catch(() => []);
  const found = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(await Promise.all(found.map(async (file) => [file.slice(app.length + 1), await readFile(file)])));
}

if (process.argv.includes("--check")) {
  const old = await present();
  const differing = [...new Set([...old.keys(), ...files.keys()])].filter((name) => {
    const [before, now] = [old.get(name), files.get(name)];
    return !before || !now || !before.equals(now);
  });
  if (differing.length > 0) {
    console.error(`canisters/chat/app is not what web/ builds: run \`npm run build\` in web/. It differs in ${differing.join(", ")}`);
    process.exit(1);
  }
  console.log(`canisters/chat/app is what web/ builds: ${files.size} files`);
} else {
  await rm(app, { recursive: true, force: true });
  for (const [name, bytes] of files) {
    await mkdir(dirname(join(app, name)), { recursive: true });
    await writeFile(join(app, name), bytes);
    console.log(`${String(bytes.byteLength).padStart(8)} bytes  ${name}`);
  }
}
