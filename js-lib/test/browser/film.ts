/**
 * A film that weighs what a test needs: WebM with a picture a second, each of them whole. Lossy WebP holds
 * one VP8 picture, so the browser that is tested encodes; what is here puts the pictures into a file.
 */

import type { Page } from "playwright-core";

const WIDTH = 640;
const HEIGHT = 360;
const SECOND_MS = 1_000;

/**
 * @param colours CSS colours of the left half, one a second; the right half is noise, which does not compress
 * @returns about 150 kB a second
 */
export async function film(page: Page, colours: readonly string[]): Promise<Buffer> {
  const draw = async ([colour, width, height]: readonly [string, number, number]) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    const paint = canvas.getContext("2d", { alpha: false });
    if (!paint) throw new Error("no canvas");
    const noise = paint.createImageData(width, height);
    for (let at = 0; at < noise.data.length; at += 65_536) crypto.getRandomValues(noise.data.subarray(at, at + 65_536));
    for (let at = 3; at < noise.data.length; at += 4) noise.data[at] = 255;
    paint.putImageData(noise, 0, 0);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, width / 2, height);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/webp", 0.95));
    const bytes = new Uint8Array((await blob?.arrayBuffer()) ?? new ArrayBuffer(0));
    return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  };
  const pictures: Buffer[] = [];
  for (const colour of colours) {
    pictures.push(vp8Of(Buffer.from(await page.evaluate(draw, [colour, WIDTH, HEIGHT] as const), "latin1")));
  }
  return webm(pictures);
}

/** The chunk `VP8 ` of a WebP file. */
function vp8Of(webp: Buffer): Buffer {
  for (let at = 12; at < webp.byteLength; ) {
    const length = webp.readUInt32LE(at + 4);
    if (webp.toString("latin1", at, at + 4) === "VP8 ") return webp.subarray(at + 8, at + 8 + length);
    at += 8 + length + (length % 2);
  }
  throw new Error("this browser makes no lossy WebP");
}

/** An element of EBML: its id in hex, a size in eight bytes, the content. */
function element(id: string, ...content: readonly Buffer[]): Buffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE(BigInt(content.reduce((sum, { byteLength }) => sum + byteLength, 0)));
  size[0] = 0x01;
  return Buffer.concat([Buffer.from(id, "hex"), size, ...content]);
}

function uint(id: string, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return element(id, bytes);
}

const text = (id: string, value: string) => element(id, Buffer.from(value));

function webm(pictures: readonly Buffer[]): Buffer {
  const duration = Buffer.alloc(8);
  duration.writeDoubleBE(pictures.length * SECOND_MS);
  const header = element("1a45dfa3", text("4282", "webm"), uint("4287", 2), uint("4285", 2));
  const info = element("1549a966", uint("2ad7b1", 1_000_000), text("4d80", "test"), text("5741", "test"), element("4489", duration));
  const video = element("e0", uint("b0", WIDTH), uint("ba", HEIGHT));
  const track = element("ae", uint("d7", 1), uint("73c5", 1), uint("83", 1), text("86", "V_VP8"), video);
  const tracks = element("1654ae6b", track);
  // Track 1, no time after the cluster's, a key frame.
  const block = (picture: Buffer) => element("a3", Buffer.from([0x81, 0, 0, 0x80]), picture);
  const clusters = pictures.map((picture, second) => element("1f43b675", uint("e7", second * SECOND_MS), block(picture)));
  const cues = (positions: readonly number[]) => {
    const points = positions.map((position, second) =>
      element("bb", uint("b3", second * SECOND_MS), element("b7", uint("f7", 1), uint("f1", position))),
    );
    return element("1c53bb6b", ...points);
  };
  // Positions have one length, so the index is as long before they are known.
  let position = info.byteLength + tracks.byteLength + cues(pictures.map(() => 0)).byteLength;
  const positions = clusters.map(({ byteLength }) => (position += byteLength) - byteLength);
  return Buffer.concat([header, element("18538067", info, tracks, cues(positions), ...clusters)]);
}
