import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { packageDir, readmeProgram } from "./support.js";

/** What an app imports. */
const PROGRAM = `
import { HttpAgent } from "@icp-sdk/core/agent";
import { type BlobReference, OpenStorage, hashSource, sourceOf, MemoryResumeStore, type UploadData } from "@openstorage/client";
import { idlFactory } from "@openstorage/client/candid/chat";
import { setStorage, type Shown } from "@openstorage/client/elements";
import { fileSource } from "@openstorage/client/node";

const agent = HttpAgent.createSync({ host: "http://localhost:1" });
const storage = new OpenStorage({ agent, indexCanisterId: "ryjl3-tyaaa-aaaaa-aaaba-cai", cache: false, resumeStore: new MemoryResumeStore() });
const said: string[] = [];
if (typeof storage.upload === "function") said.push("uploads");
// As many functions give bytes: perhaps of shared memory.
const bytes: Uint8Array = new Uint8Array(0);
const sendable: UploadData[] = [bytes, bytes.buffer, "text", new Blob([]).stream(), (async function* () { yield bytes; })()];
const empty = await hashSource(sourceOf(bytes));
if (empty.startsWith("e3b0c442") && sendable.length) said.push("hashes");
setStorage(storage, (reference: BlobReference) => reference.blobId);
const shown: Shown | undefined = undefined;
if (typeof idlFactory === "function" && !shown) said.push("waits for elements");
if ((await fileSource("package.json")).size > 0) said.push("reads files");
console.log(said.join(", "));
`;

/** The strictest that users compile with; nothing of what is shipped is skipped. */
const STRICT = [
  "--strict",
  "--skipLibCheck",
  "false",
  "--exactOptionalPropertyTypes",
  "--noUncheckedIndexedAccess",
  "--noPropertyAccessFromIndexSignature",
  "--target",
  "es2022",
  "--lib",
  "es2022,dom,dom.iterable",
];

const read = (path: string) => readFileSync(new URL(path, packageDir), "utf8");

test("the package ships its modules and their types, and nothing else", () => {
  const answer = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: packageDir,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [packed] = JSON.parse(answer) as [{ files: { path: string }[] }];
  const modules = readdirSync(new URL("src", packageDir), { recursive: true })
    .map(String)
    .filter((file) => file.endsWith(".ts"))
    .map((file) => file.replace(/\.ts$/, ""));
  const expected = [
    "LICENSE",
    "README.md",
    "package.json",
    ...modules.flatMap((name) => [`dist/src/${name}.d.ts`, `dist/src/${name}.js`]),
  ];
  assert.deepEqual(packed.files.map(({ path }) => path).sort(), expected.sort());
});

test("the licence is the project's", () => {
  assert.equal(read("LICENSE"), read("../LICENSE"));
});

test("the README names everything that can be imported", async () => {
  const text = read("README.md");
  const modules = await Promise.all(["index", "node", "elements", "range-worker"].map((name) => import(new URL(`dist/src/${name}.js`, packageDir).href)));
  const missing = modules.flatMap((module: object) => Object.keys(module)).filter((name) => !text.includes(name));
  assert.deepEqual(missing, []);
});

test("the lock file names no host", () => {
  assert.doesNotMatch(read("package-lock.json"), /"resolved"/);
});

/** Bytes, gzip; the sizes of today and a tenth. A change that needs more says so here. */
const BUDGET = { app: 106_000, library: 37_000, url: 1_500, elements: 3_600, hasher: 7_800 };

test("a page's bundle keeps its budget, and tree-shaking works", async (t) => {
  const { sizes } = (await import(new URL("scripts/size.mjs", packageDir).href)) as { sizes(): Promise<typeof BUDGET> };
  const found = await sizes();
  t.diagnostic(JSON.stringify(found));
  for (const [name, max] of Object.entries(BUDGET)) {
    const bytes = found[name as keyof typeof BUDGET];
    assert.ok(bytes <= max, `${name}: ${bytes} bytes of ${max}`);
  }
});

test("publint and attw find nothing", () => {
  const run = (program: string, ...args: string[]) =>
    execFileSync(process.execPath, [`node_modules/${program}`, ...args], { cwd: packageDir, encoding: "utf8" });
  assert.match(run("publint/src/cli.js", "--strict"), /All good/);
  run("@arethetypeswrong/cli/dist/index.js", "--pack", ".", "--profile", "esm-only");
});

test("the package works as packed: installed in a project of its own, in Node, with types, bundled", () => {
  const dir = mkdtempSync(join(tmpdir(), "openstorage-packed-"));
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: dir, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  try {
    const root = fileURLToPath(packageDir);
    const [packed] = JSON.parse(
      execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", dir], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }),
    ) as [{ filename: string }];
    writeFileSync(join(dir, "package.json"), JSON.stringify({ private: true, type: "module" }));
    run("npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts", "@icp-sdk/core@6", `./${packed.filename}`);
    writeFileSync(join(dir, "main.ts"), PROGRAM);
    const bin = (name: string) => join(root, "node_modules/.bin", name);
    run(bin("tsc"), ...STRICT, "--module", "nodenext", "main.ts");
    assert.equal(run("node", "main.js").trim(), "uploads, hashes, waits for elements, reads files");
    run(bin("tsc"), ...STRICT, "--noEmit", "--module", "esnext", "--moduleResolution", "bundler", "main.ts");
    writeFileSync(join(dir, "readme.ts"), readmeProgram("aaaaa-aa", "aaaaa-aa"));
    run(bin("tsc"), ...STRICT, "--noEmit", "--module", "esnext", "--moduleResolution", "bundler", "readme.ts");
    writeFileSync(join(dir, "page.ts"), 'import { OpenStorage } from "@openstorage/client"; console.log(OpenStorage);');
    run(bin("esbuild"), "page.ts", "--bundle", "--format=esm", "--splitting", "--outdir=page");
    assert.doesNotMatch(readFileSync(join(dir, "page/page.js"), "utf8"), /node:fs/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
