/** A blob as a URL that the browser's own elements show. */

import { checkOptions, OpenStorageError } from "./errors.js";
import { CERTIFIED_GET_BYTES_MAX, PLAIN_TYPE } from "./limits.js";
import type { OpenStorage } from "./open-storage.js";
import { isPlayed } from "./ranges.js";
import type { BlobReference } from "./reference.js";
import type { UrlOptions } from "./storage.js";
import type { PrincipalLike } from "./url.js";

/** How to get a read token; `expired` is the one that opened nothing any more. */
export type GetToken = (
  reference: BlobReference,
  accessorId: string,
  expired?: string,
) => string | Promise<string>;

export interface DisplayOptions {
  readonly accessorId: PrincipalLike;
  /** The token that came with the reference. */
  readonly token?: string | undefined;
  /** Asked when there is no token, or it has expired. */
  readonly getToken?: GetToken | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * - `blob`: the bytes are downloaded, checked against the hash and kept, where they fit the cache.
   * - `stream`: a player loads what it plays, from wherever it has jumped to, unless the bytes are in the cache.
   *   No part of a blob can be checked against its hash. By the page's range worker the gateway verifies what is
   *   played; without one nobody does.
   * - `link`: the browser loads the whole from the gateway, which verifies it up to 2 GB, unless it is in the cache.
   */
  readonly how?: "blob" | "stream" | "link";
}

export interface Display {
  readonly url: string;
  /** Whether the bytes have been checked against the blob's id by this library. */
  readonly verified: boolean;
  /** The URL is not needed any more. */
  release(): void;
}

/** A small file that lies in the app's own record, beside the reference of a larger one: there is nothing to load. */
export interface InlineFile {
  /** The bytes, or their base64, as a record in JSON has them. */
  readonly bytes: Uint8Array | string;
  readonly mimeType: string;
}

/** @throws {@link OpenStorageError} InvalidOption: `bytes` are neither bytes nor base64 */
export function inlineBytes({ bytes }: InlineFile): Uint8Array<ArrayBuffer> {
  try {
    const text = typeof bytes === "string" ? Array.from(atob(bytes), (char) => char.charCodeAt(0)) : bytes;
    return new Uint8Array(text);
  } catch {
    throw new OpenStorageError("InvalidOption", "the bytes of an inline file are neither bytes nor base64", { option: "bytes" });
  }
}

/** As {@link displayBlob}, of a file that is here. Nothing is asked and nothing checked: it is as good as its record. */
export function displayInline(file: InlineFile, how: DisplayOptions["how"] = "blob"): Display {
  const bytes = inlineBytes(file);
  const type = String(file.mimeType);
  const display = isDrawing(type, bytes.byteLength, how) ? dataUrl(bytes) : objectUrl(new Blob([bytes]), type);
  return { ...display, verified: false };
}

/**
 * A URL for `<img>`, `<video>` or a link: from the cache without any call when the hash is there.
 *
 * A URL of the page's own origin (`blob:`) has a type that browsers show without running anything, or
 * `application/octet-stream`: whoever opens it in a tab runs no script of the uploader's in that origin. An SVG picture
 * of up to 4 MB is a `data:` URL, which has an origin of its own and needs `img-src data:` in a page's policy.
 *
 * @throws as `OpenStorage.download`; what `getToken` throws
 */
export async function displayBlob(
  storage: OpenStorage,
  reference: BlobReference,
  options: DisplayOptions,
): Promise<Display> {
  checkOptions(options);
  const { accessorId, getToken, signal, how = "blob" } = options;
  const kept = await storage.cached(reference);
  if (kept) return localUrl(kept, how);
  const accessor = typeof accessorId === "string" ? accessorId : accessorId.toText();
  let current = options.token;
  let asked = false;
  const token = async (): Promise<string> => {
    if (current !== undefined && (!asked || !getToken)) {
      asked = true;
      return current;
    }
    asked = true;
    current = (await getToken?.(reference, accessor, current)) ?? current ?? "";
    return current;
  };
  if (how === "blob" && (await storage.caches(reference.size))) {
    const download = { accessorId, token, ...(signal && { signal }) };
    return localUrl(await storage.download(reference, download), how);
  }
  const url = storage.url(reference, accessorId, await token(), urlOptions(how, reference));
  return { url, verified: false, release: () => {} };
}

/** A player needs ranges whatever the type says; a link needs none, so that it is verified up to what gateways join. */
function urlOptions(how: DisplayOptions["how"], { size, mimeType }: BlobReference): UrlOptions {
  if (how === "link") return { seekable: size > CERTIFIED_GET_BYTES_MAX };
  return how === "stream" && !isPlayed(mimeType) ? { seekable: true } : {};
}

/** What browsers show and never run: pictures without scripts, sounds, films, plain text. All others may hold scripts. */
const INERT = /^(?:(?:image|audio|video)\/[a-z0-9.-]+|text\/plain)$/;
const SVG = "image/svg+xml";
/** Of an SVG picture in a `data:` URL. */
const SVG_BYTES_MAX = 4_000_000;

function essence(mimeType: string): string {
  return mimeType.split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

/** A picture whose type can run, to be shown by an `<img>`, which runs nothing. */
function isDrawing(mimeType: string, size: number, how: DisplayOptions["how"]): boolean {
  return essence(mimeType) === SVG && size <= SVG_BYTES_MAX && how === "blob";
}

async function localUrl(blob: Blob, how: DisplayOptions["how"]): Promise<Display> {
  if (!isDrawing(blob.type, blob.size, how)) return objectUrl(blob, blob.type);
  return dataUrl(new Uint8Array(await blob.arrayBuffer()));
}

/** A stranger's bytes in the origin of the page. */
function objectUrl(blob: Blob, mimeType: string): Display {
  const type = essence(mimeType);
  const url = URL.createObjectURL(blob.slice(0, blob.size, INERT.test(type) ? type : PLAIN_TYPE));
  return { url, verified: true, release: () => URL.revokeObjectURL(url) };
}

/** A document of an origin of its own, wherever it is opened. */
function dataUrl(bytes: Uint8Array): Display {
  let text = "";
  for (let at = 0; at < bytes.byteLength; at += 32_768) text += String.fromCharCode(...bytes.subarray(at, at + 32_768));
  return { url: `data:${SVG};base64,${btoa(text)}`, verified: true, release: () => {} };
}
