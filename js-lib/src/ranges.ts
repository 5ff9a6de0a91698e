/**
 * Exact ranges of which every byte is verified, for a plain `<video>`, `<audio>` or download: a service worker of the
 * app asks the gateway for certified parts, and cuts out of them what the browser wants. This is the page's side;
 * the worker's is `@openstorage/client/range-worker`.
 */

import type { BlobId } from "./blob.js";
import type { BlobUrlParts, PrincipalLike } from "./url.js";

/** Whether a type is one of films or sounds, which browsers play, and for which they ask in ranges. */
export function isPlayed(mimeType: string): boolean {
  return /^(audio|video)\//i.test(mimeType);
}

/** A blob for the worker. */
export interface RangedBlob extends BlobUrlParts {
  /** Bytes, as its reference says. */
  readonly size: number;
  readonly mimeType: string;
  /**
   * Saves the blob under this name, whatever its type and size. For a link without the attribute `download`, by which
   * Chromium goes past service workers.
   */
  readonly saveAs?: string;
}

export interface RangeWorkerOptions {
  /** `module` for a script with `import`s, which not every browser runs as a worker. Without it `classic`. */
  readonly type?: WorkerType;
  /** The folder whose pages the worker serves. Without it that of the script. */
  readonly scope?: string;
  /** How long {@link startRangeWorker} waits until the worker serves this page, in milliseconds. Without it 5,000. */
  readonly waitMs?: number;
}

const WAIT_MS = 5_000;

/**
 * Registers the app's service worker, whose script calls `answerRanges`, and waits until it serves this page.
 * Never rejects: where service workers are missing or forbidden, or this one does not come up in time, {@link RangeWorker.url}
 * gives nothing, and the blob's plain URL serves.
 *
 * ```ts
 * const storage = new OpenStorage({ agent, indexCanisterId, ranges: await startRangeWorker("/ranges.js") });
 * video.src = storage.url(reference, accessorId, token);
 * ```
 *
 * @param script its URL, or the registration of a worker that the app has already
 */
export async function startRangeWorker(
  script: string | URL | ServiceWorkerRegistration,
  options: RangeWorkerOptions = {},
): Promise<RangeWorker> {
  const worker = new RangeWorker();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, options.waitMs ?? WAIT_MS);
  });
  await Promise.race([worker.start(script, options).catch(() => {}), late]);
  clearTimeout(timer);
  return worker;
}

/** The service worker of this page, where there is one. */
export class RangeWorker {
  #active: ServiceWorker | undefined;
  #scope = "";

  /** @internal */
  async start(script: string | URL | ServiceWorkerRegistration, { type = "classic", scope }: RangeWorkerOptions): Promise<void> {
    const { serviceWorker } = navigator;
    const isScript = typeof script === "string" || script instanceof URL;
    const registration = isScript ? await serviceWorker.register(script, { type, ...(scope !== undefined && { scope }) }) : script;
    const active = await activeOf(registration);
    await claimed(active);
    this.#scope = registration.scope;
    this.#active = active;
  }

  /** Whether the worker serves this page now. A page that was reloaded past its caches has none, until it asks again. */
  get isActive(): boolean {
    return this.#active !== undefined && navigator.serviceWorker.controller?.scriptURL === this.#active.scriptURL;
  }

  /**
   * A URL of this page's own origin under which the worker serves the blob, or nothing while there is no worker. Films
   * and sounds are shown, all else is saved.
   */
  url(blob: RangedBlob): string | undefined {
    return this.isActive ? rangesUrl(blob, this.#scope) : undefined;
  }
}

/** The worker of a registration, once it has started. */
async function activeOf(registration: ServiceWorkerRegistration): Promise<ServiceWorker> {
  if (registration.active) return registration.active;
  const worker = registration.installing ?? registration.waiting;
  if (!worker) throw new Error("the registration has no worker");
  await new Promise<void>((resolve, reject) => {
    worker.addEventListener("statechange", () => {
      if (worker.state === "activated") resolve();
      if (worker.state === "redundant") reject(new Error("the worker does not start"));
    });
  });
  return worker;
}

/** What a page tells the worker that is to serve it. */
export const CLAIM = "openstorage-claim";

/** A page that was there before the worker is not served by it until the worker says so. */
function claimed(worker: ServiceWorker): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    worker.postMessage(CLAIM, [port2]);
  });
}

/** Below the worker's scope; nothing of the app may lie there. */
const FOLDER = "openstorage-ranges/";

/** See {@link RangeWorker.url}. */
export function rangesUrl({ bucket, accessorId, blobId, token, size, mimeType, saveAs }: RangedBlob, scope: string): string {
  const url = new URL(`${FOLDER}${textOf(bucket)}/${textOf(accessorId)}/${blobId}`, scope);
  const { searchParams } = url;
  searchParams.set("token", token);
  searchParams.set("size", String(size));
  searchParams.set("type", mimeType);
  if (saveAs !== undefined) searchParams.set("name", saveAs);
  return url.href;
}

function textOf(principal: PrincipalLike): string {
  return typeof principal === "string" ? principal : principal.toText();
}

/** The blob of a {@link RangeWorker.url}; nothing for any other URL. */
export function readRangesUrl(href: string, scope: string): RangedBlob | undefined {
  const folder = new URL(FOLDER, scope).href;
  if (!href.startsWith(folder)) return undefined;
  const { pathname, searchParams } = new URL(href);
  const [bucket = "", accessorId = "", blobId = ""] = pathname.slice(new URL(folder).pathname.length).split("/");
  const saveAs = searchParams.get("name");
  return {
    bucket,
    accessorId,
    blobId: blobId as BlobId,
    token: searchParams.get("token") ?? "",
    size: Number(searchParams.get("size")),
    mimeType: searchParams.get("type") ?? "",
    ...(saveAs !== null && { saveAs }),
  };
}
