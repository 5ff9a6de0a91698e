/** The React example keeps the rules of React's hooks. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { transform } from "esbuild";
import { Linter } from "eslint";
import hooks from "eslint-plugin-react-hooks";

import { packageDir } from "./support.js";

test("the React example keeps the rules of hooks", async () => {
  const dir = new URL("examples/react/src/", packageDir);
  const languageOptions = { parserOptions: { ecmaFeatures: { jsx: true } } };
  const rules = { "react-hooks/rules-of-hooks": "error", "react-hooks/exhaustive-deps": "error" } as const;
  const config = { files: ["**/*.jsx"], languageOptions, plugins: { "react-hooks": hooks }, rules };
  for (const name of readdirSync(dir)) {
    const { code } = await transform(readFileSync(new URL(name, dir), "utf8"), { loader: "tsx", jsx: "preserve", target: "esnext" });
    const found = new Linter().verify(code, config, "example.jsx");
    assert.deepEqual(found.map(({ message }) => message), [], name);
  }
});
