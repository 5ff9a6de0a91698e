/** A tiny picture of a picture or film, which travels inside its message and is seen at once. */

/** Bytes of a preview, as the chat takes them. */
const BYTES_MAX = 1_024;
const SIDES = [48, 32, 24, 16];
const QUALITY = 0.5;
const SECONDS_MAX = 4;

let last: Promise<unknown> = Promise.resolve();

/** None where the browser cannot show the file. One after the other: a large picture takes much memory. */
export function previewOf(file: Blob): Promise<Uint8Array | undefined> {
  if (file.size === 0 || !/^(image|video)\//.test(file.type)) return Promise.resolve(undefined);
  const preview = last.then(() => make(file));
  last = preview;
  return preview;
}

async function make(file: Blob): Promise<Uint8Array | undefined> {
  const { type } = file;
  try {
    const source = type.startsWith("image/") ? await createImageBitmap(file) : await firstFrame(file);
    return await shrunk(source);
  } catch {
    return undefined;
  }
}

async function shrunk(source: ImageBitmap | HTMLVideoElement): Promise<Uint8Array | undefined> {
  const [width, height] =
    source instanceof HTMLVideoElement ? [source.videoWidth, source.videoHeight] : [source.width, source.height];
  for (const side of SIDES) {
    const scale = Math.min(1, side / Math.max(width, height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const context = canvas.getContext("2d");
    if (!context) return undefined;
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/webp", QUALITY));
    if (blob && blob.size <= BYTES_MAX) return new Uint8Array(await blob.arrayBuffer());
  }
  return undefined;
}

async function firstFrame(file: Blob): Promise<HTMLVideoElement> {
  const video = document.createElement("video");
  video.muted = true;
  video.preload = "auto";
  const url = URL.createObjectURL(file);
  try {
    await new Promise<void>((resolve, reject) => {
      setTimeout(() => reject(new Error("no frame")), SECONDS_MAX * 1000);
      video.onloadeddata = () => resolve();
      video.onerror = () => reject(new Error("no film"));
      video.src = url;
    });
    return video;
  } finally {
    setTimeout(() => URL.revokeObjectURL(url), SECONDS_MAX * 1000);
  }
}

/** A URL for `<img>`. */
export function previewUrl(bytes: Uint8Array): string {
  return `data:image/webp;base64,${btoa(String.fromCharCode(...bytes))}`;
}

/**
 * The sides of a WebP, from its first chunk (RFC 9649): what it previews has the same shape. Undefined for
 * anything else: a preview is what its sender made it.
 */
export function previewSize(bytes: Uint8Array): { width: number; height: number } | undefined {
  if (bytes.byteLength < 30 || !textAt(bytes, 0, "RIFF") || !textAt(bytes, 8, "WEBP")) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sides = sidesOf(bytes, view);
  return sides && Math.min(sides.width, sides.height) > 0 ? sides : undefined;
}

function sidesOf(bytes: Uint8Array, view: DataView): { width: number; height: number } | undefined {
  if (textAt(bytes, 12, "VP8 ")) return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  if (textAt(bytes, 12, "VP8L")) {
    const sides = view.getUint32(21, true);
    return { width: (sides & 0x3fff) + 1, height: ((sides >> 14) & 0x3fff) + 1 };
  }
  // 24 bits each, of which a preview needs 16.
  if (textAt(bytes, 12, "VP8X")) return { width: view.getUint16(24, true) + 1, height: view.getUint16(27, true) + 1 };
  return undefined;
}

function textAt(bytes: Uint8Array, at: number, text: string): boolean {
  return [...text].every((char, i) => bytes[at + i] === char.charCodeAt(0));
}
