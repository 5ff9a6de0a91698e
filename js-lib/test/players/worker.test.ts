/**
 * The library's range worker in the three engines: what a plain element plays came in certified parts, all of which
 * the gateway verified. Where there is no worker the same page plays by the plain URL.
 */

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { CHUNK_BYTES } from "@openstorage/client";

import { eventually } from "../network.js";
import { sha256 } from "../support.js";
import { type Engine, ENGINES } from "./engines.js";
import { serveExample } from "./example.js";
import { Matrix } from "./matrix.js";
import { media, type Medium } from "./media.js";
import { play } from "./play.js";
import { Shelf, type Stored } from "./shelf.js";

const folder = await mkdtemp(join(tmpdir(), "openstorage-media-"));
const shelf = await Shelf.start();
const example = await serveExample();
const matrix = new Matrix("Range worker", ENGINES.map(({ name }) => name));
after(async () => {
  matrix.print();
  example.stop();
  await shelf.stop();
  await rm(folder, { recursive: true });
});

const NAMES = ["tail.mp4", "film.webm", "sound.mp3"];
const stored: (Medium & { readonly at: Stored })[] = [];
for (const medium of await media(folder, NAMES)) stored.push({ ...medium, at: await shelf.store(new Uint8Array(medium.bytes), medium.mimeType) });

/** The example's page with a blob; the URL that it gives its player, and what it says of it. */
async function shown(engine: Engine, { at: { reference, url } }: { at: Stored }): Promise<{ src: string; status: string }> {
  const plain = new URL(url({ seekable: false }));
  const [, accessorId = ""] = plain.pathname.split("/");
  const { blobId, bucket, size, mimeType } = reference;
  const gateway = `http://localhost:${plain.port}`;
  const token = plain.searchParams.get("token") ?? "";
  const words = new URLSearchParams({ gateway, bucket, accessorId, blobId, token, mimeType, size: String(size) });
  await engine.visit(`${example.url}?${words}`);
  return engine.run(async () => {
    const status = document.getElementById("status");
    while (!status?.textContent) await new Promise((resolve) => setTimeout(resolve, 50));
    return { src: document.querySelector("video")?.src ?? "", status: status.textContent };
  }, null);
}

/** The page's link saves the blob; resolves when all of it is on the disk. */
async function saved(engine: Engine, { at: { reference } }: { at: Stored }): Promise<void> {
  await engine.run(() => document.getElementById("save")?.click(), null);
  await eventually("the file is saved", async () => {
    const names = await readdir(engine.downloads).catch(() => []);
    for (const name of names) {
      const bytes = await readFile(join(engine.downloads, name)).catch(() => undefined);
      if (bytes?.byteLength === reference.size && sha256(bytes) === reference.blobId) return true;
    }
    return undefined;
  });
}

/** One engine after the other: they share the log. */
for (const { name, start } of ENGINES) {
  test(`${name} plays and jumps by the worker, all of it verified, and without a worker by the plain URL`, async (t) => {
    const engine = await start();
    try {
      for (const medium of stored) {
        await t.test(`${medium.name} by the worker`, async () => {
          const { src, status } = await shown(engine, medium);
          assert.equal(status, "verified");
          assert.ok(src.startsWith(example.url), src);
          // The page has begun to load by its own player.
          const { reached, problem } = await play(engine, { url: src, element: medium.element });
          matrix.add(`\`${medium.name}\`, range worker`, name, reached === "end" ? "plays, seeks" : reached);
          const asked = shelf.tap.log.filter(({ status }) => status !== 0);
          const lines = shelf.tap.lines().join("\n");
          assert.deepEqual({ reached, problem }, { reached: "end", problem: "" }, lines);
          const { size } = medium.at.reference;
          for (const { route, range = "", status, verified, contentRange } of asked) {
            const [, first = "", last = ""] = /^bytes=(\d+)-(\d+)$/.exec(range) ?? [];
            assert.equal(Number(first) % CHUNK_BYTES, 0, lines);
            assert.equal(Number(last), Math.min(size, Number(first) + CHUNK_BYTES) - 1, lines);
            assert.deepEqual({ route, status, verified, contentRange }, { route: "", status: 206, verified: "true", contentRange: `bytes ${first}-${last}/${size}` }, lines);
          }
          assert.ok(asked.length >= Math.ceil(size / CHUNK_BYTES) / 2, lines);
        });
        await t.test(`${medium.name} is saved by the worker`, async () => {
          await shown(engine, medium);
          await saved(engine, medium);
          matrix.add(`\`${medium.name}\`, saved by the range worker`, name, "whole");
          assert.ok(shelf.tap.log.every(({ status, verified }) => status === 0 || verified === "true"), shelf.tap.lines().join("\n"));
          shelf.tap.lines();
        });
      }
    } finally {
      await engine.close();
    }
    const without = await start();
    try {
      example.hasWorker = false;
      const [film] = stored as [(typeof stored)[number]];
      const { src, status } = await shown(without, film);
      assert.equal(status, "not verified: no service worker");
      const { reached, problem } = await play(without, { url: src, element: film.element });
      matrix.add(`\`${film.name}\`, page without its worker`, name, reached === "end" ? "plays, seeks" : reached);
      assert.deepEqual({ reached, problem }, { reached: "end", problem: "" }, shelf.tap.lines().join("\n"));
    } finally {
      example.hasWorker = true;
      shelf.tap.lines();
      await without.close();
    }
  });
}
