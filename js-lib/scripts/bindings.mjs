// Generates the Candid bindings in src/candid from the canisters' interfaces.
//
//   node scripts/bindings.mjs [OUT_DIR]
//
// What it writes is committed; test/bindings.test.ts runs it again and compares.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { generate } from "@icp-sdk/bindgen/core";

const INTERFACES = ["bucket/data_bucket.did", "index/data_bucket_index.did", "chat/chat.did"];

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const outDir = process.argv[2] ?? path("../src/candid");
await mkdir(outDir, { recursive: true });
for (const interfaceFile of INTERFACES) {
  await generate({
    didFile: path(`../../canisters/${interfaceFile}`),
    outDir,
    output: {
      force: true,
      actor: { disabled: true },
      declarations: { typescript: true, flat: true },
    },
  });
}

// The generator declares types that the service does not use.
for (const name of await readdir(outDir)) {
  const file = join(outDir, name);
  await writeFile(file, `// @ts-nocheck\n${await readFile(file, "utf8")}`);
}
