/** A blob as a URL that the browser's own elements show. */

import { OpenStorageError } from "./errors.js";
import { CERTIFIED_GET_BYTES_MAX } from "./limits.js";
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

/** @throws {@link OpenStorageError} InvalidOption: `bytes` is text that is not base64 */
export function inlineBlob({ bytes, mimeType }: InlineFile): Blob {
  if (typeof bytes !== "string") return new Blob([new Uint8Array(bytes)], { type: mimeType });
  try {
    return new Blob([Uint8Array.from(atob(bytes), (char) => char.charCodeAt(0))], { type: mimeType });
  } catch {
    throw new OpenStorageError("InvalidOption", "the bytes of an inline file are neither bytes nor base64", { option: "bytes" });
  }
}

/** As {@link displayBlob}, of a file that is here. Nothing is asked and nothing checked: it is as good as its record. */
export function displayInline(file: InlineFile): Display {
  return { ...objectUrl(inlineBlob(file)), verified: false };
}

/**
 * A URL for `<img>`, `<video>` or a link: from the cache without any call when the hash is there.
 *
 * @throws as `OpenStorage.download`; what `getToken` throws
 */
export async function displayBlob(
  storage: OpenStorage,
  reference: BlobReference,
  options: DisplayOptions,
): Promise<Display> {
  const kept = await storage.cached(reference);
  if (kept) return objectUrl(kept);
  const { accessorId, getToken, signal } = options;
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
  const { how = "blob" } = options;
  if (how === "blob" && (await storage.caches(reference.size))) {
    const download = { accessorId, token, ...(signal && { signal }) };
    return objectUrl(await storage.download(reference, download));
  }
  const url = storage.url(reference, accessorId, await token(), urlOptions(how, reference));
  return { url, verified: false, release: () => {} };
}

/** A player needs ranges whatever the type says; a link needs none, so that it is verified up to what gateways join. */
function urlOptions(how: DisplayOptions["how"], { size, mimeType }: BlobReference): UrlOptions {
  if (how === "link") return { seekable: size > CERTIFIED_GET_BYTES_MAX };
  return how === "stream" && !isPlayed(mimeType) ? { seekable: true } : {};
}

function objectUrl(blob: Blob): Display {
  const url = URL.createObjectURL(blob);
  return { url, verified: true, release: () => URL.revokeObjectURL(url) };
}
