/** Chunks from a bucket, in parallel, checked against the blob's id. */

import type { Principal } from "@icp-sdk/core/principal";

import { linked } from "./abort.js";
import { type BlobId, blobIdToBytes } from "./blob.js";
import type { BlobCache } from "./cache.js";
import type { ReadChunkOk } from "./candid/data_bucket.did.js";
import { checkRange, chunkAt, chunkCount } from "./chunks.js";
import type { Context } from "./context.js";
import { DecryptedBlob, type Described } from "./encryption.js";
import { checkOptions, OpenStorageError } from "./errors.js";
import type { KeyProvider } from "./keys.js";
import { CHUNK_BYTES } from "./limits.js";
import { Meter, type Progress } from "./progress.js";
import { type BlobReference, checkReference, toPrincipal } from "./reference.js";
import { caseOf, payloadOf, refusal } from "./refusals.js";
import { Patience } from "./retry.js";
import { CallError } from "./transport.js";
import { invalidToken, type PrincipalLike } from "./url.js";

/**
 * A read token for the accessor whose principal is the caller; or how to get one, which is asked again
 * when the one at hand has expired.
 */
export type TokenSource = string | (() => string | Promise<string>);

/** As what, and by whose leave, a blob is read. */
export interface ReadOptions {
  readonly accessorId: PrincipalLike;
  readonly token: TokenSource;
  readonly signal?: AbortSignal;
  /** Opens an encrypted blob. */
  readonly decryptWith?: KeyProvider;
}

export interface DownloadOptions extends ReadOptions {
  readonly onProgress?: (progress: Progress) => void;
  /** `false`: neither looks into the cache nor fills it. */
  readonly cache?: boolean;
}

/** Bytes `start .. end`, the end not included. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

type Bytes = Uint8Array<ArrayBuffer>;

/** One blob that is being read. */
export class Reading {
  readonly #accessor: Principal;
  readonly #token: Token;

  constructor(
    private readonly context: Context,
    readonly reference: BlobReference,
    private readonly options: DownloadOptions,
  ) {
    checkReference(reference);
    checkOptions(options);
    this.#accessor = toPrincipal(options.accessorId, "accessorId");
    this.#token = new Token(options.token);
  }

  /**
   * The blob's bytes in order, from the cache or from the bucket. The last piece is given only once
   * the whole has the hash that it should have; earlier ones are not to be trusted before that.
   *
   * @throws `WrongBytes`, `TokenRefused`, `NotFound`, `NotAuthorized`; as `Canister.call`
   */
  async *sealed(): AsyncGenerator<Bytes, void, undefined> {
    const { size } = this.reference;
    const cache = await this.#cache();
    const kept = await this.#kept();
    if (kept) {
      this.#tell(size);
      yield kept;
      return;
    }
    const wanted = cache?.takes(size) ? new Uint8Array(size) : undefined;
    let at = 0;
    for await (const bytes of this.#verified()) {
      wanted?.set(bytes, at);
      at += bytes.byteLength;
      // The cache has it before the last piece is out, since a reader may leave then.
      if (wanted && at === size) await cache?.put(this.reference.blobId, wanted);
      this.#tell(at);
      yield bytes;
    }
  }

  /** As {@link Reading.sealed}, decrypted where the options say how. */
  async plain(): Promise<{ described: Described; pieces: AsyncIterable<Bytes> }> {
    const { decryptWith } = this.options;
    const { mimeType } = this.reference;
    if (!decryptWith) return { described: { mimeType }, pieces: this.sealed() };
    const opened = await this.#opened(decryptWith);
    return { described: opened.described, pieces: opened.decrypt(this.sealed()) };
  }

  /** Bytes `start .. end` (of the plain blob, where it is encrypted), without the rest. */
  async range(range: ByteRange): Promise<Bytes> {
    const { start, end } = range ?? {};
    const { decryptWith } = this.options;
    if (!decryptWith) return this.#sealedRange(start, end);
    const opened = await this.#opened(decryptWith);
    checkRange(start, end, opened.size);
    return opened.read(start, end);
  }

  async #cache(): Promise<BlobCache | undefined> {
    return this.options.cache === false ? undefined : this.context.cache();
  }

  /** What the cache has of the blob; looked for once. */
  #kept(): Promise<Bytes | undefined> {
    this.#looked ??= this.#cache().then((cache) => cache?.get(this.reference.blobId));
    return this.#looked;
  }

  #looked: Promise<Bytes | undefined> | undefined;

  #opened(provider: KeyProvider): Promise<DecryptedBlob> {
    const read = (start: number, end: number) => this.#sealedRange(start, end);
    return DecryptedBlob.open(this.reference.size, read, provider);
  }

  async #sealedRange(start: number, end: number): Promise<Bytes> {
    const { size } = this.reference;
    checkRange(start, end, size);
    const kept = await this.#kept();
    if (kept) return kept.subarray(start, end);
    const out = new Uint8Array(end - start);
    if (end === start) return out;
    let at = Math.floor(start / CHUNK_BYTES);
    for await (const chunk of this.#chunks(at, Math.ceil(end / CHUNK_BYTES))) {
      const from = at++ * CHUNK_BYTES;
      const piece = chunk.subarray(Math.max(0, start - from), Math.min(chunk.byteLength, end - from));
      out.set(piece, Math.max(0, from - start));
    }
    return out;
  }

  async *#verified(): AsyncGenerator<Bytes, void, undefined> {
    const { blobId, size } = this.reference;
    const hasher = await this.context.parts.platform.hasher(size);
    const count = chunkCount(size);
    let index = 0;
    for await (const bytes of this.#chunks(0, count)) {
      hasher.update(bytes);
      if (++index === count && (await hasher.digest()) !== blobId) throw this.#wrongBytes();
      yield bytes;
    }
  }

  /** Chunks `from .. until` in order, as many on their way as the pace allows. */
  async *#chunks(from: number, until: number): AsyncGenerator<Bytes, void, undefined> {
    const ended = linked(this.options.signal);
    const coming: Promise<Bytes>[] = [];
    let next = from;
    const order = () => {
      while (next < until && coming.length < Math.max(2, this.context.parts.pullPace.limit)) {
        const own = linked(ended.signal);
        const chunk = this.#chunk(next++, own.signal).finally(own.release);
        // One that fails is met when its turn comes; until then nobody may call it unhandled.
        chunk.catch(() => {});
        coming.push(chunk);
      }
    };
    try {
      for (order(); coming.length > 0; order()) yield await (coming.shift() as Promise<Bytes>);
    } finally {
      ended.abort();
      ended.release();
    }
  }

  async #chunk(index: number, signal: AbortSignal): Promise<Bytes> {
    const { parts } = this.context;
    const patience = new Patience(parts.patienceMs);
    const { start, end } = chunkAt(this.reference.size, index);
    for (let attempt = 0; ; attempt++) {
      const slot = await patience.free(() => parts.pullPace.slot(end - start, signal));
      let last: string | Error;
      try {
        const issued = await this.#token.get();
        const answer = await this.#read(index, issued.token, parts.pullPace.stallMs(attempt), signal);
        if ("Ok" in answer) {
          const bytes = this.#checked(index, answer.Ok);
          slot.done({ end: "arrived", bytes: bytes.byteLength });
          return bytes;
        }
        last = this.#mayPass(answer.Err, issued);
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        if (error.kind !== "transient") throw this.#bucket.failed("read_chunk", error);
        slot.done({ end: "lost" });
        last = error;
      } finally {
        slot.done({ end: "other" });
      }
      await patience.pause(last, signal);
    }
  }

  get #bucket() {
    return this.context.bucket(this.reference.bucket);
  }

  #read(index: number, token: string, limitMs: number, signal: AbortSignal) {
    const args = {
      blob_id: blobIdToBytes(this.reference.blobId),
      accessor_id: this.#accessor,
      token,
      chunk_index: index,
    };
    return this.#bucket.attempt("read_chunk", [args], limitMs, signal);
  }

  #checked(index: number, chunk: ReadChunkOk): Bytes {
    const { size } = this.reference;
    const { start, end } = chunkAt(size, index);
    const bytes = chunk.bytes as Bytes;
    if (Number(chunk.size) !== size || bytes.byteLength !== end - start) throw this.#wrongBytes();
    return bytes;
  }

  /** @throws what the refusal means, where trying again does not help */
  #mayPass(error: object, issued: Issued): string {
    const problem = payloadOf(error as { InvalidToken: object }, "InvalidToken");
    const what = problem && caseOf(problem);
    // The bucket learns of the token's issuer in the next sync.
    if (what === "UnknownIssuer" || what === "KeysNotReady") return `the token's issuer: ${what}`;
    const hasEnded = what === "Expired" || what === "Revoked";
    if (hasEnded && this.#token.renew(issued)) return `the token: ${what}`;
    const { bucket, blobId } = this.reference;
    throw refusal(error, { canister: bucket, method: "read_chunk", blobId });
  }

  readonly #meter = new Meter();

  #tell(bytesDone: number): void {
    const progress = this.#meter.read("downloading", bytesDone, this.reference.size);
    this.options.onProgress?.(progress);
  }

  #wrongBytes(): OpenStorageError<"WrongBytes"> {
    const { bucket, blobId } = this.reference;
    return wrongBytes(bucket, blobId);
  }
}

/** A token, and the how-manieth it is. */
interface Issued {
  readonly token: string;
  readonly turn: number;
}

/** The token at hand, and another when it has expired. */
class Token {
  #current: Promise<Issued> | undefined;
  #turn = 0;
  #expired: string | undefined;

  constructor(private readonly source: TokenSource) {}

  get(): Promise<Issued> {
    this.#current ??= this.#issue(this.#turn);
    return this.#current;
  }

  async #issue(turn: number): Promise<Issued> {
    const { source } = this;
    const token = typeof source === "function" ? await source() : source;
    if (typeof token !== "string") throw invalidToken();
    return { token, turn };
  }

  /** Whether there may be a better one. Chunks that fail together ask for one together. */
  renew({ token, turn }: Issued): boolean {
    if (turn < this.#turn) return true;
    // An app that gives the expired one again has no better.
    if (typeof this.source !== "function" || token === this.#expired) return false;
    this.#expired = token;
    this.#turn++;
    this.#current = undefined;
    return this.#turn <= RENEWALS_MAX;
  }
}

/** A read token lives for 18 h and more: an app that gives expired ones again and again is at fault. */
const RENEWALS_MAX = 3;

function wrongBytes(bucket: string, blobId: BlobId): OpenStorageError<"WrongBytes"> {
  const message = `${bucket} sent other bytes than the blob ${blobId}: do not use them, and try again`;
  return new OpenStorageError("WrongBytes", message, { bucket, blobId });
}
