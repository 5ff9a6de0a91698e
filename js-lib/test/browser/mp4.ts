/**
 * A film for the tests: H.264 in an MP4 whose index comes first (faststart). Nothing but
 * Chromium is needed: it encodes a picture for each second, and mediabunny puts them into the file.
 *
 * Every frame is a whole picture of its own, so that one picture can fill its second by being repeated; noise
 * keeps it from getting small. Six squares, white or black, are its second as a binary number: whoever sees
 * the film can say where it is.
 */

import { BufferTarget, EncodedPacket, EncodedVideoPacketSource, Mp4OutputFormat, Output } from "mediabunny";
import type { BrowserContext, Page } from "playwright-core";

const FRAMES_A_SECOND = 6;

/** Pixels. The squares stand in a row, and begin at the left upper corner. */
const SIDES = { width: 320, height: 240, square: 48 };
const SQUARES = 6;
export const SECONDS_MAX = 2 ** SQUARES - 1;

interface Encoded {
  /** In base64, one a second. */
  readonly pictures: readonly string[];
  readonly config: Omit<VideoDecoderConfig, "description"> & { readonly description: readonly number[] };
}

/**
 * About 350 kB a second.
 *
 * @param seconds up to {@link SECONDS_MAX}
 * @throws where the browser has no encoder for H.264
 */
export async function mp4Film(context: BrowserContext, seconds: number): Promise<Buffer> {
  const { pictures, config } = await encoded(context, seconds);
  const target = new BufferTarget();
  const output = new Output({ format: new Mp4OutputFormat({ fastStart: "in-memory" }), target });
  const source = new EncodedVideoPacketSource("avc");
  output.addVideoTrack(source, { frameRate: FRAMES_A_SECOND });
  await output.start();
  const decoderConfig = { ...config, description: new Uint8Array(config.description) };
  for (let frame = 0; frame < seconds * FRAMES_A_SECOND; frame++) {
    const picture = Buffer.from(pictures[Math.floor(frame / FRAMES_A_SECOND)] ?? "", "base64");
    const packet = new EncodedPacket(picture, "key", frame / FRAMES_A_SECOND, 1 / FRAMES_A_SECOND);
    await source.add(packet, { decoderConfig });
  }
  await output.finalize();
  return Buffer.from(target.buffer ?? new ArrayBuffer(0));
}

/** Encoders are there for secure origins only, so the page pretends to be one. */
async function encoded(context: BrowserContext, seconds: number): Promise<Encoded> {
  const page = await context.newPage();
  await page.route("https://film.test/", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
  await page.goto("https://film.test/");
  const made = await page.evaluate(
    async ({ seconds, sides: { width, height, square }, squares }): Promise<Encoded> => {
      const pictures: string[] = [];
      let config: Encoded["config"] | undefined;
      const text = (bytes: Uint8Array) => {
        const pieces: string[] = [];
        for (let i = 0; i < bytes.length; i += 8_192) pieces.push(String.fromCharCode(...bytes.subarray(i, i + 8_192)));
        return btoa(pieces.join(""));
      };
      let fail: (error: unknown) => void = () => {};
      const failed = new Promise<never>((_, reject) => (fail = reject));
      const encoder = new VideoEncoder({
        output: (chunk, metadata) => {
          const bytes = new Uint8Array(chunk.byteLength);
          chunk.copyTo(bytes);
          pictures.push(text(bytes));
          const { decoderConfig } = metadata ?? {};
          if (decoderConfig?.description) {
            const description = [...new Uint8Array(decoderConfig.description as ArrayBuffer)];
            config ??= { ...decoderConfig, description };
          }
        },
        error: fail,
      });
      encoder.configure({ codec: "avc1.42001f", width, height, bitrate: 60_000_000, framerate: 25, avc: { format: "avc" } });
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d");
      if (!context) throw new Error("no canvas");
      for (let second = 0; second < seconds; second++) {
        const pixels = new ImageData(width, height);
        for (let i = 0; i < pixels.data.length; i++) pixels.data[i] = i % 4 === 3 ? 255 : Math.random() * 256;
        context.putImageData(pixels, 0, 0);
        for (let bit = 0; bit < squares; bit++) {
          context.fillStyle = (second >> bit) & 1 ? "white" : "black";
          context.fillRect(bit * square, 0, square, square);
        }
        const frame = new VideoFrame(canvas, { timestamp: second * 1_000_000 });
        encoder.encode(frame, { keyFrame: true });
        frame.close();
      }
      await Promise.race([encoder.flush(), failed]);
      if (!config) throw new Error("the encoder told no configuration");
      return { pictures, config };
    },
    { seconds, sides: SIDES, squares: SQUARES },
  );
  await page.close();
  return made;
}

/** Which second of the film the page's only `<video>` shows, as it is seen on the screen. */
export async function secondSeen(page: Page): Promise<number> {
  // A frame that was sought is painted with the next but one.
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  const png = await page.locator("video").screenshot();
  return page.evaluate(
    async ({ png, square, squares, side }) => {
      const bytes = Uint8Array.from(atob(png), (char) => char.charCodeAt(0));
      const seen = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
      const context = new OffscreenCanvas(seen.width, seen.height).getContext("2d");
      if (!context) throw new Error("no canvas");
      context.drawImage(seen, 0, 0);
      const scale = seen.width / side;
      let second = 0;
      for (let bit = 0; bit < squares; bit++) {
        const [grey = 0] = context.getImageData((bit + 0.5) * square * scale, 0.5 * square * scale, 1, 1).data;
        if (grey > 127) second += 1 << bit;
      }
      return second;
    },
    { png: png.toString("base64"), square: SIDES.square, squares: SQUARES, side: SIDES.width },
  );
}
