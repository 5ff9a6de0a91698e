/** The library's front door: one user's way to an index and its buckets. */

import { type BlobId, blobIdToBytes, parseBlobId } from "./blob.js";
import { BlobCache, CACHE_BYTES_MAX, type CacheStore } from "./cache.js";
import { checkSize, chunkAt } from "./chunks.js";
import { Context } from "./context.js";
import { type ByteRange, type DownloadOptions, Reading, type ReadOptions } from "./download.js";
import type { Described } from "./encryption.js";
import { type Cost, costOf } from "./estimate.js";
import { checkOptions, OpenStorageError } from "./errors.js";
import { events, type EventsOptions, type StorageEvent } from "./events.js";
import { madeOrNot, ResumeHints } from "./hints.js";
import { accessorsOf, anySource, checkMimeType, checkName } from "./input.js";
import { CERTIFIED_GET_BYTES_MAX } from "./limits.js";
import { type OpenUpload, openUploads, type UploadsOptions } from "./open-uploads.js";
import { Pace } from "./pace.js";
import type { Platform } from "./platform/platform.js";
import { isPlayed, type RangeWorker } from "./ranges.js";
import { type BlobReference, checkReference, referenceFromCandid, toPrincipal } from "./reference.js";
import { caseOf, refusal } from "./refusals.js";
import { MemoryResumeStore, type ResumeRecord, resumeKey, type ResumeStore } from "./resume.js";
import { PATIENCE_MS } from "./retry.js";
import { discardUpload, UploadRun } from "./run-upload.js";
import { Semaphore } from "./semaphore.js";
import { type AgentLike, agentTransport, type Transport } from "./transport.js";
import { Upload, type UploadData, type UploadOptions } from "./upload.js";
import { type BlobUrlOptions, blobUrl, checkToken, type PrincipalLike } from "./url.js";

/** Chunks on their way at the same time, at most. */
const CONCURRENCY_MAX = 32;
/** Bytes of those chunks, unless the app says how many: what a line of 32 MB a second takes in 2 s. */
const BYTES_IN_FLIGHT_MAX = 64_000_000;
/** Uploads that do something at the same time. */
const UPLOADS_ACTIVE_MAX = 16;
/** Files hashed at the same time: one in one go is held in memory. */
const HASHES_ACTIVE_MAX = 2;

export interface OpenStorageOptions {
  /** An agent of `@icp-sdk/core`; its identity is the user. */
  readonly agent?: AgentLike & { readonly host?: URL };
  /** Another way to reach canisters, in place of the agent. */
  readonly transport?: Transport;
  readonly indexCanisterId: PrincipalLike;
  /** Where URLs point to. Without it: the agent's own host, or `https://icp0.io` on mainnet. */
  readonly gateway?: string | URL;
  /** Chunks on their way at the same time, each way, at most: 1 to 32. Without it 32. */
  readonly concurrencyMax?: number;
  /**
   * Bytes of those chunks, at most; one alone always goes. Each takes about twice its size of memory until it has been
   * answered. A line of R bytes a second on which a call takes T seconds is filled by R × T. Without it 64 MB; less is
   * used where more makes nothing faster.
   */
  readonly bytesInFlightMax?: number;
  /** How long something is tried again without any progress, in milliseconds. */
  readonly patienceMs?: number;
  /** Where unfinished uploads are remembered; without it IndexedDB, or a folder in Node. */
  readonly resumeStore?: ResumeStore;
  /** Where downloads are kept; `false` keeps none. Without it IndexedDB, or a folder in Node. */
  readonly cache?: CacheStore | false;
  /** Bytes that the cache takes, at most. */
  readonly cacheBytesMax?: number;
  /** The app's service worker, for films and sounds that are verified while they play: see `startRangeWorker`. */
  readonly ranges?: RangeWorker;
}

/** An upload that can go on: ask the user for the file, and upload it again. */
export interface UnfinishedUpload extends ResumeRecord {
  /** Bytes that the bucket has. */
  readonly bytesDone: number;
}

/** What the user may store, in bytes. */
export interface UserAllowance {
  readonly byteLimit: number;
  /** Stored, in all buckets. */
  readonly bytesUsed: number;
  /**
   * Held in buckets by unfinished uploads, which {@link OpenStorageOn.uploads} lists, and some MB in each bucket that was
   * uploaded to in the last hour.
   */
  readonly bytesLeased: number;
}

export interface Estimate extends Cost {
  readonly blobId: BlobId;
  readonly size: number;
  /** Some bucket has these bytes already. */
  readonly stored: boolean;
}

export interface ForwardOptions {
  /** Where the caller sees the blob now, and the read token for it. */
  readonly from: PrincipalLike;
  readonly token: string;
  /** Who is to see it too. */
  readonly accessorIds: readonly PrincipalLike[];
  readonly mimeType?: string;
  readonly name?: string;
  readonly signal?: AbortSignal;
}

export interface DeleteOptions {
  readonly accessorId: PrincipalLike;
  /** Whose reference; without it the caller's. */
  readonly owner?: PrincipalLike;
  /** A delete token, for a reference of somebody else. */
  readonly token?: string;
  readonly signal?: AbortSignal;
}

export interface UrlOptions extends Partial<BlobUrlOptions> {}

/** `OpenStorage` without a platform: for one of your own. */
export class OpenStorageOn {
  readonly #context: Context;
  readonly #gateway: string | URL;
  readonly #platform: Platform;
  readonly #store: CacheStore | undefined;
  readonly #ranges: RangeWorker | undefined;

  /** @throws `InvalidPrincipal`, `InvalidOption` */
  constructor(platform: Platform, options: OpenStorageOptions) {
    checkOptions(options);
    const indexId = toPrincipal(options.indexCanisterId, "indexCanisterId").toText();
    const transport = options.transport ?? agentTransport(options.agent);
    const concurrencyMax = options.concurrencyMax ?? CONCURRENCY_MAX;
    const bytesMax = options.bytesInFlightMax ?? BYTES_IN_FLIGHT_MAX;
    if (!Number.isInteger(concurrencyMax) || concurrencyMax < 1 || concurrencyMax > CONCURRENCY_MAX) {
      throw invalidOption("concurrencyMax", `chunks in flight are 1 to ${CONCURRENCY_MAX}`);
    }
    for (const name of ["patienceMs", "cacheBytesMax", "bytesInFlightMax"] as const) {
      if (!(Number(options[name] ?? 0) >= 0)) throw invalidOption(name, `${name} is a number from 0 up`);
    }
    this.#platform = platform;
    this.#gateway = options.gateway ?? gatewayOf(options.agent?.host);
    this.#ranges = options.ranges;
    const store = (options.cache ?? madeOrNot(() => platform.cacheStore())) || undefined;
    this.#store = store;
    const caches = new Map<string, BlobCache>();
    this.#context = new Context(
      {
        transport,
        platform,
        resumeStore: new ResumeHints(options.resumeStore ?? madeOrNot(() => platform.resumeStore()) ?? new MemoryResumeStore()),
        patienceMs: options.patienceMs ?? PATIENCE_MS,
        pushPace: new Pace(concurrencyMax, bytesMax),
        pullPace: new Pace(concurrencyMax, bytesMax),
        uploads: new Semaphore(UPLOADS_ACTIVE_MAX),
        hashes: new Semaphore(HASHES_ACTIVE_MAX),
        cache(principal) {
          if (!store) return undefined;
          const known = caches.get(principal);
          const cache = known ?? new BlobCache(store, principal, options.cacheBytesMax ?? CACHE_BYTES_MAX);
          caches.set(principal, cache);
          return cache;
        },
      },
      indexId,
    );
  }

  /**
   * Stores the bytes for the caller and makes them visible to the accessors. Bytes that a bucket has
   * already are not sent again; a few chunks of them are, to prove that the caller has them. An upload
   * that was interrupted goes on where it ended: upload the same bytes again.
   *
   * ```ts
   * const upload = storage.upload(file, { accessorIds: [chat.accessor_id] });
   * for await (const { phase, bytesDone, bytesTotal } of upload) show(phase, bytesDone / bytesTotal);
   * const reference = await upload.done;
   * ```
   *
   * @throws for options that cannot be right; everything later rejects {@link Upload.done}
   */
  upload(data: UploadData, options: UploadOptions): Upload {
    const run = new UploadRun(this.#context, data, options);
    return new Upload((control) => run.run(control), () => run.discard(), options);
  }

  /**
   * The blob, checked against its id: from the cache, else from the bucket with its chunks in parallel.
   * With `to`, the bytes go there in order and memory stays bounded; an error aborts it, since the whole
   * can be judged only at the end; what else is known of the blob is told.
   *
   * With `decryptWith`, type and name are those inside, and a blob that has a name comes as a `File`.
   *
   * @throws `WrongBytes`, `TokenRefused`, `NotFound`, `NotAuthorized`, `WrongKey`, `NotEncrypted`; `GaveUp`
   */
  async download(reference: BlobReference, options: DownloadOptions): Promise<Blob>;
  async download(
    reference: BlobReference,
    options: DownloadOptions & { readonly to: WritableStream<Uint8Array> },
  ): Promise<Described>;
  async download(
    reference: BlobReference,
    options: DownloadOptions & { readonly to?: WritableStream<Uint8Array> },
  ): Promise<Blob | Described> {
    const { described, pieces } = await new Reading(this.#context, reference, options).plain();
    if (options.to) {
      await pour(pieces, options.to);
      return described;
    }
    // Blobs of blobs: a browser may move them to its disk while the rest is on its way.
    const blobs: Blob[] = [];
    for await (const piece of pieces) blobs.push(new Blob([piece]));
    const { name, mimeType } = described;
    return name === undefined ? new Blob(blobs, { type: mimeType }) : new File(blobs, name, { type: mimeType });
  }

  /** The blob from the cache, where it is there: without a token, without a call. */
  async cached(reference: BlobReference): Promise<Blob | undefined> {
    const bytes = await (await this.#context.cache())?.get(checkReference(reference).blobId);
    return bytes && new Blob([bytes], { type: reference.mimeType });
  }

  /**
   * Keeps the bytes of a blob that the app has: what it has uploaded is shown without being downloaded, also while this is
   * under way. Where they are other bytes, or more than the cache takes, nothing is kept.
   */
  async keep(reference: Pick<BlobReference, "blobId">, data: Blob): Promise<void> {
    const cache = await this.#context.cache();
    if (!cache?.takes(data.size)) return;
    await cache.whileComing(reference.blobId, async () => {
      const blobId = await this.#platform.hash(anySource(data, undefined), {}).catch(() => undefined);
      if (blobId === reference.blobId) await cache.put(blobId, new Uint8Array(await data.arrayBuffer()));
    });
  }

  /** Forgets every blob in the cache and the keys they are encrypted under: for signing out. */
  async clearCache(): Promise<void> {
    await this.#store?.clear();
  }

  /** Whether a blob of this size is kept when it is downloaded. */
  async caches(size: number): Promise<boolean> {
    return (await this.#context.cache())?.takes(size) ?? false;
  }

  /**
   * Some bytes of a blob, without the rest. Of an encrypted blob they are authenticated; of others they
   * are what the bucket says, since only the whole can be checked.
   *
   * @throws as {@link OpenStorageOn.download}; `InvalidRange`
   */
  readRange(
    reference: BlobReference,
    range: ByteRange,
    options: ReadOptions & { readonly cache?: boolean },
  ): Promise<Uint8Array<ArrayBuffer>> {
    return new Reading(this.#context, reference, options).range(range);
  }

  /**
   * The URL under which the blob's bucket serves it, for an `<img>`, a `<video>`, an `<audio>` or a link. Whoever has
   * it can read the blob while the token lives. Without options it is the one that works for the blob's type and size:
   *
   * - films and sounds play and jump: by the page's range worker, where it has one, verified; else as with `seekable`;
   * - what is larger than gateways join (2 GB) comes whole: as with `seekable`;
   * - all else is verified by the gateway, every byte.
   *
   * @throws as {@link blobUrl}
   */
  url(reference: BlobReference, accessorId: PrincipalLike, token: string, options: UrlOptions = {}): string {
    const { blobId, bucket, size, mimeType } = checkReference(reference);
    const parts = { blobId, bucket, accessorId, token };
    const isRanged = isPlayed(mimeType);
    const seekable = isRanged || size > CERTIFIED_GET_BYTES_MAX;
    const plain = blobUrl(parts, { gateway: this.#gateway, seekable, ...options });
    const isFree = isRanged && Object.keys(options).length === 0;
    return (isFree && this.#ranges?.url({ ...parts, size, mimeType })) || plain;
  }

  /** What uploading these bytes would send and cost, and whether they are stored already. Reads them once. */
  async estimate(data: UploadData, options: { size?: number; signal?: AbortSignal } = {}): Promise<Estimate> {
    const source = anySource(data, options.size);
    const size = checkSize(source.size);
    const blobId = await this.#platform.hash(source, options);
    const args = { blob_id: blobIdToBytes(blobId), size: BigInt(size), exclude: [] };
    const { index } = this.#context;
    const answer = await index.call("allocated_bucket", [args], this.#callOptions(options.signal));
    const isKnown = "Ok" in answer || "NoActiveBucket" in answer.Err;
    if (!isKnown) throw refusal(answer.Err, { canister: index.id, method: "allocated_bucket", blobId, size });
    const stored = "Ok" in answer && answer.Ok.stored;
    return { blobId, size, stored, ...costOf(size, stored) };
  }

  /** What the caller may store. @throws `NotRegistered` */
  async allowance(options: { signal?: AbortSignal } = {}): Promise<UserAllowance> {
    const { index } = this.#context;
    const answer = await index.call("user", [[]], this.#callOptions(options.signal));
    if ("Err" in answer) throw refusal(answer.Err, { canister: index.id, method: "user" });
    const { byte_limit, bytes_used, bytes_leased } = answer.Ok;
    return {
      byteLimit: Number(byte_limit),
      bytesUsed: Number(bytes_used),
      bytesLeased: Number(bytes_leased),
    };
  }

  /**
   * Gives a blob that the caller may read to further accessors, at the caller's own charge. No byte
   * travels.
   *
   * @throws `TokenRefused`, `NotFound`, `AllowanceExceeded`, `AccessorDeleted`
   */
  async forward(reference: BlobReference, options: ForwardOptions): Promise<BlobReference> {
    checkOptions(options);
    const bucket = this.#context.bucket(checkReference(reference).bucket);
    const name = checkName(options.name);
    const args = {
      blob_id: blobIdToBytes(reference.blobId),
      accessor_ids: [...accessorsOf(options.accessorIds)],
      mime_type: options.mimeType === undefined ? reference.mimeType : checkMimeType(options.mimeType),
      name: name === undefined ? ([] as []) : ([name] as [string]),
      from_accessor: toPrincipal(options.from, "from"),
      token: checkToken(options.token),
    };
    const about = { canister: bucket.id, method: "add_blob_reference", blobId: reference.blobId, size: reference.size };
    const ask = () => bucket.call("add_blob_reference", [args], this.#callOptions(options.signal));
    const answer = await this.#context.asked(bucket.id, ask, options.signal);
    if ("Err" in answer) throw refusal(answer.Err, about);
    return referenceFromCandid(answer.Ok);
  }

  /**
   * Removes a reference; the last one takes the blob along. Removing one that is not there is no error.
   *
   * @throws `NotAuthorized`, `TokenRefused`, `TokenOlderThanReference`
   */
  async delete(reference: BlobReference, options: DeleteOptions): Promise<void> {
    checkOptions(options);
    const bucket = this.#context.bucket(checkReference(reference).bucket);
    const args = {
      blob_id: blobIdToBytes(reference.blobId),
      accessor_id: toPrincipal(options.accessorId, "accessorId"),
      owner: options.owner === undefined ? await this.#context.principal() : toPrincipal(options.owner, "owner"),
      token: options.token === undefined ? ([] as []) : ([checkToken(options.token)] as [string]),
    };
    const answer = await bucket.call("delete_blob", [args], this.#callOptions(options.signal));
    if ("Err" in answer) throw refusal(answer.Err, { canister: bucket.id, method: "delete_blob" });
    await (await this.#context.cache())?.delete(reference.blobId);
  }

  /**
   * Removes every reference to an accessor in every bucket, for good: the second half of deleting a chat.
   *
   * @param token from the accessor's issuer, for the caller
   */
  async deleteAccessor(accessorId: PrincipalLike, token: string): Promise<void> {
    const { index } = this.#context;
    const args = { chat_id: toPrincipal(accessorId, "accessorId"), token: checkToken(token) };
    const answer = await index.call("delete_chat", [args], this.#callOptions(undefined));
    if ("Err" in answer) throw refusal(answer.Err, { canister: index.id, method: "delete_chat" });
  }

  /**
   * What happens to files, in order, as it happens: the caller's own, and for admins and issuers everybody's.
   *
   * ```ts
   * for await (const event of storage.events({ after: lastSeen })) {
   *   if (event.what === "deleted") forget(event.blobId);
   *   lastSeen = event.id;
   * }
   * ```
   *
   * Leaving the loop ends it, and so does the signal, whose reason is thrown.
   *
   * @throws `InvalidOption`, `InvalidPrincipal`; from the loop `NotAuthorized`, `GaveUp`
   */
  events(options: EventsOptions = {}): AsyncGenerator<StorageEvent, void, undefined> {
    const { index, parts } = this.#context;
    return events(index, options, parts.patienceMs);
  }

  /**
   * The caller's unfinished uploads in all buckets, from whatever device they were begun, with what they hold of the
   * allowance. {@link OpenStorageOn.discardUpload} gives any of them up.
   *
   * @throws `GaveUp`, `CallFailed`; the signal's reason
   */
  uploads(options: UploadsOptions = {}): Promise<OpenUpload[]> {
    return openUploads(this.#context, options);
  }

  /** The caller's uploads that were begun on this device and can go on, also of earlier pages and processes. */
  async unfinishedUploads(): Promise<UnfinishedUpload[]> {
    const { resumeStore } = this.#context.parts;
    const principal = (await this.#context.principal()).toText();
    const records = (await resumeStore.all()).filter(
      (record) => record.principal === principal && record.index === this.#context.index.id,
    );
    const found = await Promise.all(records.map((record) => this.#unfinished(record)));
    return found.filter((upload) => upload !== undefined);
  }

  async #unfinished(record: ResumeRecord): Promise<UnfinishedUpload | undefined> {
    const bucket = this.#context.bucket(record.bucket);
    const args = { blob_id: blobIdToBytes(record.blobId) };
    const answer = await bucket.call("upload_status", [args], this.#callOptions(undefined));
    const state = "Ok" in answer ? caseOf(answer.Ok.state) : "Gone";
    if (!("Ok" in answer) || state === "Gone" || state === "Stored") {
      await this.#context.parts.resumeStore.delete(resumeKey(record));
      return undefined;
    }
    const bytesOf = (index: number) => {
      const { start, end } = chunkAt(record.size, index);
      return end - start;
    };
    let missing = 0;
    // The last chunk alone may be shorter than the others.
    for (const { start, end } of answer.Ok.missing) {
      if (end > start) missing += (end - start - 1) * bytesOf(start) + bytesOf(end - 1);
    }
    return { ...record, bytesDone: record.size - missing };
  }

  /** Gives up an unfinished upload: the bucket drops its chunks and gives the allowance back. */
  async discardUpload(upload: Pick<ResumeRecord, "bucket" | "blobId">): Promise<void> {
    checkOptions(upload);
    parseBlobId(upload.blobId);
    toPrincipal(upload.bucket, "bucket");
    await discardUpload(this.#context, upload.bucket, upload.blobId);
    const principal = (await this.#context.principal()).toText();
    const key = resumeKey({ principal, index: this.#context.index.id, blobId: upload.blobId });
    await this.#context.parts.resumeStore.delete(key);
  }

  #callOptions(signal: AbortSignal | undefined) {
    return { signal, patienceMs: this.#context.parts.patienceMs };
  }
}

async function pour(pieces: AsyncIterable<Uint8Array>, to: WritableStream<Uint8Array>): Promise<void> {
  const writer = to.getWriter();
  try {
    for await (const piece of pieces) await writer.write(piece);
    await writer.close();
  } catch (error) {
    await writer.abort(error).catch(() => {});
    throw error;
  } finally {
    writer.releaseLock();
  }
}

const MAINNET_GATEWAY = "https://icp0.io";
const MAINNET = /(^|\.)(icp-api\.io|icp0\.io|ic0\.app|internetcomputer\.org)$/;

/** Local networks serve HTTP where they take calls. */
function gatewayOf(host: URL | undefined): string {
  return host === undefined || MAINNET.test(host.hostname) ? MAINNET_GATEWAY : host.origin;
}

function invalidOption(option: string, message: string): OpenStorageError<"InvalidOption"> {
  return new OpenStorageError("InvalidOption", message, { option });
}
