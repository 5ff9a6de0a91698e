/**
 * Tools that everybody has, by the certified URL and by `/m/`: each gets the right bytes, or fails and says so. None
 * takes half for the whole.
 */

import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { packageDir, sha256 } from "../support.js";
import { Matrix } from "./matrix.js";
import { media } from "./media.js";
import { LAST_PAGE_TEXT, pdf } from "./pdf.js";
import { Shelf, type Stored } from "./shelf.js";
import { type Ran, run } from "./tool.js";

const PYTHON = process.env["PLAYERS_PYTHON"] ?? "python3";
const READERS = fileURLToPath(new URL("test/players/readers.py", packageDir));
/** Around a part, and over several. */
const SIZES = [1_999_999, 2_000_000, 2_000_001, 9_000_123];

const folder = await mkdtemp(join(tmpdir(), "openstorage-tools-"));
const shelf = await Shelf.start();
const WAYS = [
  { way: "certified URL", options: { seekable: false } },
  { way: "`/m/` URL", options: { seekable: true } },
];
const matrix = new Matrix("Tool", WAYS.map(({ way }) => way));
after(async () => {
  matrix.print();
  await shelf.stop();
  await rm(folder, { recursive: true });
});

let files = 0;
/** A new file with these bytes; its path. */
async function file(bytes: Uint8Array): Promise<string> {
  const path = join(folder, `file-${files++}`);
  await writeFile(path, bytes);
  return path;
}

/** Ends the test unless the tool did the right thing. */
function judge(what: string, way: string, ran: Ran, got: Buffer, right: Uint8Array): void {
  const isRight = ran.code === 0 && Buffer.compare(got, right) === 0;
  const verdict = isRight ? "right" : ran.code === 0 ? `**wrong**: ${got.byteLength} bytes` : `refused (${ran.code})`;
  matrix.add(what, way, verdict);
  const log = shelf.tap.lines().join("\n");
  assert.ok(isRight, `${verdict} where ${right.byteLength} bytes with ${sha256(right).slice(0, 8)} were right\n${log}\n${ran.err}`);
}

/** A range as curl takes it, and the bytes that it means. */
function rangesOf(bytes: Uint8Array): [range: string, name: string, right: Uint8Array][] {
  const { byteLength: size } = bytes;
  const middle = size === 9_000_123 ? 4_999_999 : Math.floor(size / 2);
  return [
    ["0-99", "0-99", bytes.subarray(0, 100)],
    ["0-1", "0-1", bytes.subarray(0, 2)],
    ["0-0", "0-0", bytes.subarray(0, 1)],
    ["-100", "-100", bytes.subarray(-100)],
    ["0-", "0-", bytes],
    [`0-${size - 1}`, "0-(size−1)", bytes],
    [`${middle}-`, "n-", bytes.subarray(middle)],
    ["1999998-2000001", "1999998-2000001", bytes.subarray(1_999_998, 2_000_002)],
    [`${size - 1}-`, "(size−1)-", bytes.subarray(-1)],
    ...(size > 2_000_000 ? ([["2000000-", "2000000-", bytes.subarray(2_000_000)]] as [string, string, Uint8Array][]) : []),
    ...(size > 4_000_000 ? ([["2000000-3999999", "2000000-3999999", bytes.subarray(2_000_000, 4_000_000)]] as [string, string, Uint8Array][]) : []),
  ];
}

for (const size of SIZES) {
  const bytes = randomFillSync(new Uint8Array(size));
  const at = await shelf.store(bytes, "application/octet-stream", "noise.bin");
  for (const { way, options } of WAYS) {
    test(`${size.toLocaleString("en")} bytes by the ${way}`, async (t) => {
      const url = at.plain(options);
      await t.test("curl, the whole", async () => {
        const ran = await run(folder, "curl", ["-sS", "-f", url]);
        judge("`curl`", way, ran, ran.out, bytes);
      });
      await t.test("curl -I tells the length", async () => {
        const ran = await run(folder, "curl", ["-sS", "-f", "-I", url]);
        const length = /^content-length: (\d+)/im.exec(ran.out.toString())?.[1] ?? "none";
        judge("`curl -I`", way, ran, Buffer.from(length), Buffer.from(String(size)));
      });
      for (const [range, name, right] of rangesOf(bytes)) {
        await t.test(`curl -r ${range}`, async () => {
          const ran = await run(folder, "curl", ["-sS", "-f", "-D", "head", "-r", range, url]);
          const head = await readFile(join(folder, "head"), "latin1");
          // A server may ignore a range, and says so by its status.
          const isWhole = /^HTTP\/1.1 200/.test(head);
          judge(`\`curl -r ${name}\``, way, ran, ran.out, isWhole ? bytes : right);
          assert.equal(/^content-length: (\d+)/im.exec(head)?.[1], String(ran.out.byteLength), head);
        });
      }
      await t.test("curl -r with a start behind the end is refused, or the range ignored", async () => {
        const { code, out } = await run(folder, "curl", ["-sS", "-f", "-r", `${size}-`, url]);
        const verdict = code === 22 ? "refused (22)" : out.byteLength === size ? "ignored" : "**wrong**";
        matrix.add("`curl -r (size)-`", way, verdict);
        assert.notEqual(verdict, "**wrong**");
      });
      for (const kept of [1_000_000, 2_000_000, 3_000_000].filter((kept) => kept < size)) {
        for (const [tool, args] of [
          ["curl -C -", ["curl", "-sS", "-f", "-C", "-", "-o"]],
          ["wget -c", ["wget", "-q", "-c", "-t", "1", "-O"]],
        ] as [string, string[]][]) {
          await t.test(`${tool} with ${kept.toLocaleString("en")} bytes on disk`, async () => {
            const path = await file(bytes.subarray(0, kept));
            const [program = "", ...words] = args;
            const ran = await run(folder, program, [...words, path, url]);
            judge(`\`${tool}\` with ${kept.toLocaleString("en")} on disk`, way, ran, await readFile(path), bytes);
          });
        }
      }
      await t.test("wget, the whole", async () => {
        const ran = await run(folder, "wget", ["-q", "-t", "1", "-O", "-", url]);
        judge("`wget`", way, ran, ran.out, bytes);
      });
      await t.test("aria2c -x4", async () => {
        const name = `aria-${files++}`;
        const ran = await run(folder, "aria2c", ["-q", "-x4", "-s4", "-k1M", "--max-tries=1", "-d", folder, "-o", name, url]);
        judge("`aria2c -x4 -k1M`", way, ran, await readFile(join(folder, name)).catch(() => Buffer.alloc(0)), bytes);
      });
      await t.test("Python's urllib, a range across the border of a part", async () => {
        const [first, last] = [Math.min(size, 2_000_000) - 10, Math.min(size, 2_000_010) - 1];
        const ran = await run(folder, PYTHON, [READERS, "urllib", url, String(first), String(last)]);
        judge("Python `urllib`, a range", way, ran, ran.out, bytes.subarray(first, last + 1));
      });
      await t.test("Python's requests, the whole", async () => {
        const ran = await run(folder, PYTHON, [READERS, "requests", url]);
        judge("Python `requests`", way, ran, ran.out, bytes);
      });
    });
  }
}

test("ffmpeg copies the whole film", async (t) => {
  const films = await media(folder, ["tail.mp4", "fast.mp4", "film.webm", "sound.mp3"]);
  for (const { name, mimeType, bytes } of films) {
    const copy = async (from: string) => run(folder, "ffmpeg", ["-v", "error", "-nostdin", "-i", from, "-map", "0", "-c", "copy", "-f", "md5", "-"]);
    const right = await copy(name);
    const at = await shelf.store(new Uint8Array(bytes), mimeType, name);
    for (const { way, options } of WAYS) {
      await t.test(`${name} by the ${way}`, async () => {
        const ran = await copy(at.plain(options));
        judge(`\`ffmpeg -i URL -c copy\`, ${name}`, way, ran, ran.out, right.out);
      });
    }
  }
});

/** What a reader says of the URL is what it says of the file. */
async function reads(what: string, path: string, at: Stored, t: { test(name: string, work: () => Promise<void>): Promise<void> }): Promise<void> {
  const right = await run(folder, PYTHON, [READERS, what, path]);
  assert.equal(right.code, 0, right.err);
  for (const { way, options } of WAYS) {
    await t.test(`by the ${way}`, async () => {
      const ran = await run(folder, PYTHON, [READERS, what, at.plain(options)]);
      judge(what === "pdf" ? "`pypdf`, by ranges" : "`pyarrow.parquet`, by ranges", way, ran, ran.out, right.out);
    });
  }
}

test("a Parquet reader takes one column of one row group", async (t) => {
  const path = join(folder, "table.parquet");
  const made = await run(folder, PYTHON, [READERS, "make-parquet", path]);
  assert.equal(made.code, 0, made.err);
  const bytes = await readFile(path);
  assert.ok(bytes.byteLength > 4_000_000);
  await reads("parquet", path, await shelf.store(new Uint8Array(bytes), "application/vnd.apache.parquet", "table.parquet"), t);
});

for (const kind of ["plain", "linearized"]) {
  test(`readers of a ${kind} PDF see all of its pages`, async (t) => {
    let path = await file(pdf());
    if (kind === "linearized") {
      const linear = `${path}-linear`;
      const made = await run(folder, "qpdf", ["--linearize", path, linear]);
      assert.equal(made.code, 0, made.err);
      path = linear;
    }
    const at = await shelf.store(new Uint8Array(await readFile(path)), "application/pdf", "pages.pdf");
    await reads("pdf", path, at, t);
    for (const { way, options } of WAYS) {
      await t.test(`pdftotext of what curl saves by the ${way}`, async () => {
        const saved = join(folder, `saved-${files++}.pdf`);
        const got = await run(folder, "curl", ["-sS", "-f", "-o", saved, at.plain(options)]);
        assert.equal(got.code, 0, got.err);
        const ran = await run(folder, "pdftotext", ["-f", "12", "-l", "12", saved, "-"]);
        judge("`curl` and `pdftotext`", way, ran, Buffer.from(ran.out.toString().trim()), Buffer.from(LAST_PAGE_TEXT));
      });
    }
  });
}
