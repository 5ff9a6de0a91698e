/** A page with the {@link Kit}, on the origin of a network's gateway: what is not the page goes to the network. */

import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import type { BrowserContext, Page } from "playwright-core";

export type { Kit } from "./kit.js";

const { outputFiles } = await build({
  entryPoints: [fileURLToPath(new URL("kit.js", import.meta.url))],
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  write: false,
  logLevel: "error",
});
const code = outputFiles[0]?.text ?? "";

/**
 * @param stepMs how long a step on the page may take
 * @param policy the page's Content Security Policy
 */
export async function kitPage(context: BrowserContext, gateway: string, stepMs: number, policy = "default-src * blob: data: 'unsafe-inline' 'wasm-unsafe-eval'"): Promise<Page> {
  await context.route(`${gateway}/kit.js`, (route) => route.fulfill({ contentType: "text/javascript", body: code }));
  const body = '<!doctype html><title>kit</title><link rel="icon" href="data:,"><input type="file"><script type="module" src="kit.js"></script>';
  await context.route(`${gateway}/kit.html`, (route) => route.fulfill({ contentType: "text/html", headers: { "content-security-policy": policy }, body }));
  const page = await context.newPage();
  page.setDefaultTimeout(stepMs);
  await page.goto(`${gateway}/kit.html`);
  return page;
}
