/**
 * Films and sounds in the three engines, on a page that has an origin and a cache, in a plain element: by the URL
 * that the library gives each is loaded, played, sought in both directions, and played to its end.
 */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import type { UrlOptions } from "@openstorage/client";

import { ENGINES } from "./engines.js";
import { Matrix } from "./matrix.js";
import { media, type Medium } from "./media.js";
import { play } from "./play.js";
import { Shelf, type Stored } from "./shelf.js";

const folder = await mkdtemp(join(tmpdir(), "openstorage-media-"));
const shelf = await Shelf.start();
const page = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><title>A page</title><body></body>"));
await new Promise<void>((resolve) => page.listen(0, "127.0.0.1", resolve));
const matrix = new Matrix("Players", ENGINES.map(({ name }) => name));
after(async () => {
  matrix.print();
  page.close();
  await shelf.stop();
  await rm(folder, { recursive: true });
});

const pageUrl = `http://localhost:${(page.address() as AddressInfo).port}/`;
const stored: (Medium & { readonly at: Stored })[] = [];
for (const medium of await media(folder)) {
  stored.push({ ...medium, at: await shelf.store(new Uint8Array(medium.bytes), medium.mimeType, medium.name) });
}

interface Way {
  readonly way: string;
  readonly options: UrlOptions;
  readonly crossOrigin?: boolean;
  /** Which files; all of them without it. */
  readonly names?: readonly string[];
}

const WAYS: readonly Way[] = [
  { way: "`storage.url()`", options: {} },
  { way: "`storage.url()` with `crossorigin`", options: {}, crossOrigin: true, names: ["tail.mp4"] },
  { way: "certified URL", options: { seekable: false }, names: ["tail.mp4", "film.webm", "sound.mp3"] },
];

test("films and sounds play, jump and end", { concurrency: ENGINES.length }, async (t) => {
  const runs = ENGINES.map(({ name, start }) =>
    t.test(name, async (t) => {
      const engine = await start();
      t.diagnostic(`${name} ${engine.version}`);
      try {
        for (const { way, options, names, crossOrigin = false } of WAYS) {
          for (const { name: file, element, at } of stored.filter((medium) => names?.includes(medium.name) ?? true)) {
            await t.test(`${file} by ${way}`, async () => {
              await engine.visit(pageUrl);
              const played = await play(engine, { url: at.url(options), element, crossOrigin });
              matrix.add(`\`${file}\`, ${way}`, name, played.reached === "end" ? "plays, seeks" : played.reached);
              assert.equal(played.problem, "");
              assert.equal(played.reached, "end");
            });
          }
        }
      } finally {
        await engine.close();
      }
    }),
  );
  await Promise.all(runs);
});
