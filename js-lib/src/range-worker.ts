/**
 * The worker's side of verified ranges: what an app's service worker calls.
 *
 * ```ts
 * import { answerRanges } from "@openstorage/client/range-worker";
 *
 * answerRanges({ gateway: "https://icp0.io" });
 * ```
 *
 * What is verified, and by whom: the worker asks the gateway for whole parts of 2,000,000 bytes, each of which the
 * bucket certifies, and **the gateway** checks each against the subnet's signature before it passes it on. The worker
 * checks that every part is as long as it must be; a blob of one part it checks against the blob's id itself. The hash of a larger
 * blob says nothing about one of its parts, so whoever does not trust the gateway downloads the whole
 * (`OpenStorage.download`), which is checked against the id. The raw domain verifies nothing and is refused here.
 */

import { blobIdFromBytes } from "./blob.js";
import { checkSize } from "./chunks.js";
import { OpenStorageError } from "./errors.js";
import { CHUNK_BYTES } from "./limits.js";
import { CLAIM, isPlayed, type RangedBlob, readRangesUrl } from "./ranges.js";
import { blobUrl, type UrlForm } from "./url.js";

export interface RangeWorkerSettings {
  /** The HTTP gateway's origin, as in `OpenStorageOptions`: one that verifies. */
  readonly gateway: string | URL;
  /** As in `BlobUrlOptions`. */
  readonly form?: UrlForm;
}

/** What of a service worker's scope is used: the types of pages and of workers exclude each other. */
interface WorkerScope {
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  addEventListener(type: "message", listener: (event: ExtendableMessage) => void): void;
  addEventListener(type: "fetch", listener: (event: Fetching) => void): void;
}

interface ExtendableMessage {
  readonly data: unknown;
  readonly ports: readonly MessagePort[];
  waitUntil(work: Promise<unknown>): void;
}

interface Fetching {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}

/**
 * Answers the URLs of `RangeWorker.url`, and no others: call it while the worker's script runs for the first time. The
 * worker's life is the app's own: nothing is cached on disk, and no update is hurried.
 *
 * @throws `InvalidGateway` for the raw domain, where nothing is verified
 */
export function answerRanges({ gateway, form }: RangeWorkerSettings): void {
  const { hostname } = new URL(gateway);
  if (hostname.split(".").includes("raw")) {
    const message = `${hostname} cannot be the gateway: the raw domain verifies nothing`;
    throw new OpenStorageError("InvalidGateway", message, { gateway: String(gateway) });
  }
  const scope = globalThis as unknown as WorkerScope;
  const parts = new Parts((blob) => blobUrl(blob, { gateway, ...(form && { form }) }));
  scope.addEventListener("message", (event) => {
    if (event.data !== CLAIM) return;
    event.waitUntil(scope.clients.claim().then(() => event.ports[0]?.postMessage(CLAIM)));
  });
  scope.addEventListener("fetch", (event) => {
    const blob = readRangesUrl(event.request.url, scope.registration.scope);
    if (blob) event.respondWith(answer(event.request, blob, parts));
  });
}

/** Bytes `start .. end`, the end not included. */
interface Span {
  readonly start: number;
  readonly end: number;
}

async function answer(request: Request, blob: RangedBlob, parts: Parts): Promise<Response> {
  try {
    checkSize(blob.size);
    const wanted = spanOf(request.headers.get("range"), blob.size);
    const headers = headersOf(request, blob);
    if (wanted === "unsatisfiable") {
      headers.set("content-range", `bytes */${blob.size}`);
      return new Response(null, { status: 416, headers });
    }
    const { start, end } = wanted ?? { start: 0, end: blob.size };
    // Before anything is promised: a token that opens nothing is told by its status.
    await parts.get(blob, Math.floor(start / CHUNK_BYTES));
    headers.set("content-length", String(end - start));
    if (wanted) headers.set("content-range", `bytes ${start}-${end - 1}/${blob.size}`);
    return new Response(streamOf(parts, blob, { start, end }), { status: wanted ? 206 : 200, headers });
  } catch (error) {
    const status = error instanceof PartError ? error.status : 400;
    return new Response(String(error), { status, headers: { "content-type": "text/plain; charset=utf-8" } });
  }
}

/**
 * The worker's answers are of the app's own origin, and blobs are strangers': a film or a sound is given to a player as what
 * it is, everything else is saved, and nothing runs.
 */
function headersOf({ destination }: Request, { blobId, mimeType, saveAs }: RangedBlob): Headers {
  const isShown = saveAs === undefined && isPlayed(mimeType) && (destination === "video" || destination === "audio");
  const headers = new Headers({
    "accept-ranges": "bytes",
    "cache-control": "no-store",
    "content-security-policy": "sandbox; default-src 'none'",
    "content-type": isShown ? mimeType : "application/octet-stream",
    etag: `"${blobId}"`,
    "x-content-type-options": "nosniff",
  });
  if (!isShown) {
    const name = saveAs === undefined ? "" : `; filename*=UTF-8''${encodeURIComponent(saveAs).replace(/['()*]/g, percent)}`;
    headers.set("content-disposition", `attachment${name}`);
  }
  return headers;
}

function percent(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
}

/** One range as RFC 9110 writes it; nothing where there is none, or several, which a server may ignore. */
function spanOf(range: string | null, size: number): Span | "unsatisfiable" | undefined {
  const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(range ?? "") ?? [];
  if (first === "" && last === "") return undefined;
  const start = first === "" ? size - Math.min(size, Number(last)) : Number(first);
  const end = first === "" || last === "" ? size : Math.min(size, Number(last) + 1);
  if (last !== "" && first !== "" && Number(last) < Number(first)) return undefined;
  return start < end ? { start, end } : "unsatisfiable";
}

/** Bytes that are given to the browser at once: players stop, and ask from elsewhere, after as many. */
const PIECE_BYTES = 262_144;

/** The next part is on its way while one is read. A part that cannot be had breaks the answer off. */
function streamOf(parts: Parts, blob: RangedBlob, { start, end }: Span): ReadableStream<Uint8Array> {
  let at = start;
  return new ReadableStream(
    {
      async pull(controller) {
        if (at === end) return controller.close();
        const index = Math.floor(at / CHUNK_BYTES);
        const from = index * CHUNK_BYTES;
        const bytes = await parts.get(blob, index);
        if (from + CHUNK_BYTES < end) parts.get(blob, index + 1).catch(() => {});
        const piece = bytes.slice(at - from, Math.min(bytes.byteLength, end - from, at - from + PIECE_BYTES));
        at += piece.byteLength;
        controller.enqueue(piece);
      },
    },
    { highWaterMark: 0 },
  );
}

/** A part that did not come, with the status that says why. */
class PartError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Parts that stay in memory: players ask for the same one again and again. */
const PARTS_KEPT_MAX = 4;

/** Certified parts, as the gateway gives them. */
class Parts {
  /** The one that was used last stands last. */
  readonly #kept = new Map<string, Promise<Uint8Array>>();

  constructor(private readonly urlOf: (blob: RangedBlob) => string) {}

  get(blob: RangedBlob, index: number): Promise<Uint8Array> {
    // With the token in it: what one opens, another may not.
    const url = this.urlOf(blob);
    const key = `${url}#${index}`;
    const known = this.#kept.get(key);
    this.#kept.delete(key);
    const part = known ?? fetchPart(url, blob, index);
    this.#kept.set(key, part);
    if (!known) part.catch(() => this.#kept.delete(key));
    const [oldest] = this.#kept.keys();
    if (oldest !== undefined && this.#kept.size > PARTS_KEPT_MAX) this.#kept.delete(oldest);
    return part;
  }
}

/**
 * A range that is exactly one part: such an answer is certified. The browser's own cache is left out, as it would ask
 * for the rest of a part that it has the beginning of, and that would not be.
 *
 * @throws PartError
 */
async function fetchPart(url: string, { blobId, size }: RangedBlob, index: number): Promise<Uint8Array> {
  const start = index * CHUNK_BYTES;
  const end = Math.min(size, start + CHUNK_BYTES);
  const isWhole = end - start === size;
  const headers: HeadersInit = isWhole ? {} : { range: `bytes=${start}-${end - 1}` };
  const answered = await fetch(url, { headers, cache: "no-store", credentials: "omit", redirect: "error" }).catch((error: unknown) => {
    throw new PartError(502, `the gateway does not answer: ${error}`);
  });
  if (answered.status !== (isWhole ? 200 : 206)) {
    // Whatever it is, it is not the bytes; a success without them is none.
    throw new PartError(answered.status >= 400 ? answered.status : 502, `the gateway answers ${answered.status}`);
  }
  const bytes = new Uint8Array(
    await answered.arrayBuffer().catch((error: unknown) => {
      throw new PartError(502, `the gateway's answer breaks off: ${error}`);
    }),
  );
  if (bytes.byteLength !== end - start) throw new PartError(502, `part ${index} has ${bytes.byteLength} bytes`);
  if (isWhole) {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    if (blobIdFromBytes(hash) !== blobId) throw new PartError(502, "these are other bytes than the blob's");
  }
  return bytes;
}
