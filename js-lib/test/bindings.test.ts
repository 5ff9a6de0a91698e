import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { packageDir } from "./support.js";

test("the bindings are those of the canisters' interfaces: npm run bindings", () => {
  const dir = mkdtempSync(join(tmpdir(), "openstorage-bindings-"));
  try {
    execFileSync("node", ["scripts/bindings.mjs", dir], { cwd: packageDir });
    const committed = new URL("src/candid/", packageDir);
    assert.deepEqual(readdirSync(dir).sort(), readdirSync(committed).sort());
    for (const name of readdirSync(dir)) {
      const [fresh, kept] = [readFileSync(join(dir, name), "utf8"), readFileSync(new URL(name, committed), "utf8")];
      assert.equal(kept, fresh, `${name} is out of date: npm run bindings`);
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
});
