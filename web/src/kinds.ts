/** What kind of view a file has. */

export type Kind = "picture" | "film" | "sound";

/** The pictures that every browser shows. */
const PICTURE = /^image\/(apng|avif|bmp|gif|jpeg|png|svg\+xml|vnd\.microsoft\.icon|webp|x-icon)$/;

/** None for what is no picture, film or sound, by its type. */
export function kindOf(mimeType: string): Kind | undefined {
  const [kind] = mimeType.toLowerCase().split("/");
  if (kind === "image") return "picture";
  if (kind === "video") return "film";
  return kind === "audio" ? "sound" : undefined;
}

/** False where this browser will most likely not show it: HEIC, TIFF, raw pictures; films and sounds of rare kinds. */
export function isShown(kind: Kind, mimeType: string): boolean {
  const type = mimeType.toLowerCase();
  if (kind === "picture") return PICTURE.test(type);
  return document.createElement(kind === "film" ? "video" : "audio").canPlayType(type) !== "";
}
