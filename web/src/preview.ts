/** A tiny picture of a picture or film, which travels inside its message and is seen at once. */

/** Bytes of a preview, as the chat takes them. */
const BYTES_MAX = 1_024;
const SIDES = [28, 20, 12];
const SECONDS_MAX = 4;

/** None where the browser cannot show the file. */
export async function previewOf(file: Blob): Promise<Uint8Array | undefined> {
  const { type } = file;
  if (file.size === 0 || !/^(image|video)\//.test(type)) return undefined;
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
    const scale = side / Math.max(width, height);
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const context = canvas.getContext("2d");
    if (!context) return undefined;
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/webp", 0.5));
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
export function previewUrl(bytes: Uint8Array | number[]): string {
  return `data:image/webp;base64,${btoa(String.fromCharCode(...bytes))}`;
}
