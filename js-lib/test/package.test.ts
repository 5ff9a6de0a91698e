import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { packageDir } from "./support.js";

const read = (path: string) => readFileSync(new URL(path, packageDir), "utf8");

test("the package ships its modules and their types, and nothing else", () => {
  const answer = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: packageDir,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [packed] = JSON.parse(answer) as [{ files: { path: string }[] }];
  const modules = readdirSync(new URL("src", packageDir)).map((file) => file.replace(/\.ts$/, ""));
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

test("the lock file names no host", () => {
  assert.doesNotMatch(read("package-lock.json"), /"resolved"/);
});
