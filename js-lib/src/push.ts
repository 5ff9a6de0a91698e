/**
 * Chunks to a bucket, in parallel, and again where an earlier try ended.
 *
 * An upload is a loop around one question: which chunks does the bucket want? At first `upload_status`
 * answers it (all of them, or what an interrupted upload left), later what the pushes themselves met. Where
 * no earlier upload is remembered, a few chunks are on their way while it is asked. Of a blob that the bucket has
 * already the first chunk goes alone: it finds out which others the bucket wants to see.
 */

import type { Principal } from "@icp-sdk/core/principal";

import { linked } from "./abort.js";
import { type BlobId, blobIdToBytes } from "./blob.js";
import type { Canister, CallOptions, Watch } from "./canister.js";
import type { _SERVICE as Bucket, PushChunkError, UploadStatus } from "./candid/data_bucket.did.js";
import { chunkAt, chunkCount, planChunks } from "./chunks.js";
import type { OpenStorageError } from "./errors.js";
import { POSSESSION_CHUNKS_MAX } from "./limits.js";
import type { Pace, Slot } from "./pace.js";
import type { Phase } from "./progress.js";
import { caseOf, payloadOf, refusal, type Subject, uploadGone } from "./refusals.js";
import { Patience, sleep } from "./retry.js";
import { readInto, type Source } from "./source.js";
import { CallError, orAborted } from "./transport.js";

/** One blob on its way to one bucket. */
export interface PushJob {
  readonly bucket: Canister<Bucket>;
  readonly source: Source;
  readonly blobId: BlobId;
  readonly mimeType: string;
  readonly name: string | undefined;
  readonly accessorIds: readonly Principal[];
  readonly pace: Pace;
  readonly options: CallOptions;
  /** The index says that the bucket has the blob, the caller's or somebody else's. */
  readonly isStored: boolean;
  /** Where an earlier upload may have left something to go on with: `likely` where one is remembered. */
  readonly resumes: "no" | "perhaps" | "likely";
  /** What the bucket has of it, where that has been asked already. */
  readonly asked: Promise<UploadStatus | undefined> | undefined;
  /** Makes the bucket ask the index about the caller; once for all who wait for it. */
  register(): Promise<void>;
  /** Resolves while the upload is not paused. */
  open(): Promise<void>;
  onBytes(phase: Phase, bytesDone: number): void;
}

/** `BucketFull`: the caller asks the index for another bucket. */
export class BucketFull extends Error {
  constructor(
    /** What the bucket has of the upload, and keeps until it is told to drop it. */
    readonly bytesArrived: number,
  ) {
    super();
  }
}

/** What a push has shown. */
type Step =
  | { readonly what: "open" | "verifying" | "stored" }
  /** The blob is stored already; the bucket wants to see these chunks. */
  | { readonly what: "needed"; readonly indexes: readonly number[] };

/**
 * Pushes until the caller has a reference to the blob.
 *
 * @throws {@link BucketFull}; {@link OpenStorageError}; the signal's reason
 */
export async function push(job: PushJob): Promise<void> {
  await new Push(job).run();
}

/** The same chunk again. */
interface Again {
  readonly what: "again";
  readonly last: string | Error;
  readonly askedMs?: number;
}

/** The same chunk again, once it is its turn: nothing went wrong. */
interface Crowded {
  readonly what: "crowded";
}

/** The bucket does not know the caller: `error` is right if that stays so. */
interface Unknown {
  readonly what: "unknown";
  readonly error: OpenStorageError;
}

const STATES: Readonly<Record<string, "open" | "verifying" | "stored">> = {
  Open: "open",
  Verifying: "verifying",
  Stored: "stored",
};

/** A chunk for which the line is too thin now. */
class CrowdedOut extends Error {}

class Push {
  readonly #subject: Subject;
  readonly #count: number;
  /** Of the chunks that are being sent: one that arrives is progress of the whole. */
  readonly #patiences = new Set<Patience>();
  /** Chunks that the bucket has, and their bytes. */
  readonly #has = new Set<number>();
  #bytesDone = 0;
  /** Bytes of chunks on their way that have gone out, by index. */
  readonly #bytesOut = new Map<number, number>();
  #toldMs = 0;
  /** A chunk got lost, and none has arrived since. */
  #isWaiting = false;
  /** A push has shown that the bucket had not the whole yet: once it says that it has, that is this upload's doing. */
  #wasOpen = false;
  /** The bucket has said so. */
  readonly #storedHeard: Promise<void>;
  #hearStored!: () => void;

  constructor(private readonly job: PushJob) {
    const { bucket, blobId, source } = job;
    this.#subject = { canister: bucket.id, method: "push_chunk", blobId, size: source.size };
    this.#count = chunkCount(source.size);
    this.#storedHeard = new Promise((resolve) => (this.#hearStored = resolve));
  }

  async run(): Promise<void> {
    const patience = new Patience(this.job.options.patienceMs);
    let wanted = await this.#firstPlan();
    let elsewhere = this.#askElsewhere();
    // The fewest chunks that were ever missing: only less than that is progress, so this ends.
    let fewest = this.job.isStored ? Number.POSITIVE_INFINITY : wanted.length;
    for (;;) {
      const step = await this.#pushAll(wanted, elsewhere);
      if (step.what === "stored") break;
      const next = step.what === "needed" ? step.indexes : await this.#settled();
      if (!next) break;
      if (next.length < fewest) {
        fewest = next.length;
        patience.renew();
      } else {
        const last = `${next.length} chunks are still missing`;
        await patience.pause(last, this.job.options.signal);
      }
      wanted = next;
      elsewhere = undefined;
      for (const index of wanted) if (this.#has.delete(index)) this.#bytesDone -= this.#bytesOf(index);
    }
    this.#bytesDone = this.job.source.size;
    this.#tell();
  }

  #arrived(index: number): void {
    if (this.#has.has(index)) return;
    this.#has.add(index);
    this.#bytesDone += this.#bytesOf(index);
  }

  /** All bytes are done once the bucket has them; until then, those that have gone out count as well. */
  #tell(): void {
    const { size } = this.job.source;
    let bytes = this.#bytesDone;
    for (const out of this.#bytesOut.values()) bytes += out;
    this.job.onBytes("uploading", this.#bytesDone < size ? Math.min(bytes, size - 1) : size);
  }

  /**
   * The chunks to send at first: what an interrupted upload left, what the bucket wants to see of a blob that it has,
   * or all. Never none: the first push also names the accessors.
   */
  async #firstPlan(): Promise<readonly number[]> {
    const { isStored, resumes } = this.job;
    let status = resumes === "likely" ? await this.#status() : undefined;
    if (!status && isStored && this.#count > POSSESSION_CHUNKS_MAX) {
      // To whom it does not know the bucket says nothing; a call is cheaper than a chunk in vain.
      await this.job.register();
      status = await this.#status();
    }
    return this.#planOf(status);
  }

  #planOf(status: UploadStatus | undefined): readonly number[] {
    const state = status && caseOf(status.state);
    if (status && state === "Open") {
      const wanted = this.#indexes(status);
      this.#heard(wanted);
      this.#tell();
      return wanted.length > 0 ? wanted : [0];
    }
    // The last chunk may be short: the cheapest way to name the accessors.
    return state === "Stored" || state === "Verifying" ? [this.#count - 1] : this.#all();
  }

  /** The bucket has all chunks but these, and perhaps what has arrived meanwhile. */
  #heard(missing: readonly number[]): void {
    const isMissing = new Set(missing);
    for (let index = 0; index < this.#count; index++) if (!isMissing.has(index)) this.#arrived(index);
  }

  /**
   * Asks whether the caller has begun the upload from elsewhere, while the first chunks are on their way. Resolves once
   * that is known; `undefined` where it is already.
   */
  #askElsewhere(): Promise<void> | undefined {
    if (this.job.resumes !== "perhaps" || this.job.isStored) return undefined;
    const hear = (status: UploadStatus | undefined) => {
      if (status && caseOf(status.state) === "Open") this.#heard(this.#indexes(status));
    };
    // What goes wrong here goes wrong with the chunks too, which tell.
    return (this.job.asked ?? this.#status()).then(hear).catch(() => {});
  }

  #all(): readonly number[] {
    this.#has.clear();
    this.#bytesDone = 0;
    this.#tell();
    return Array.from({ length: this.#count }, (_, index) => index);
  }

  #bytesOf(index: number): number {
    const { start, end } = chunkAt(this.job.source.size, index);
    return end - start;
  }

  /** @throws `InvalidRange` when the bucket names chunks that the blob has not */
  #indexes(status: UploadStatus): readonly number[] {
    return Array.from(planChunks(this.job.source.size, status.missing), ({ index }) => index);
  }

  /**
   * In parallel. Ends early when one of them says that the rest is not wanted.
   *
   * @param elsewhere when it is known which of them the bucket has
   */
  async #pushAll(wanted: readonly number[], elsewhere: Promise<void> | undefined): Promise<Step> {
    const [first, ...others] = wanted;
    if (!this.job.isStored || first === undefined) return this.#pushParallel(wanted, elsewhere);
    const step = await this.#push(first, await this.#slot(first, this.#signal), this.#signal);
    if (step.what !== "open" || others.length === 0) return step;
    return this.#pushParallel(others, elsewhere);
  }

  get #signal(): AbortSignal | undefined {
    return this.job.options.signal;
  }

  async #slot(index: number, signal: AbortSignal | undefined): Promise<Slot> {
    await this.job.open();
    return this.job.pace.slot(this.#bytesOf(index), signal);
  }

  async #pushParallel(indexes: readonly number[], elsewhere: Promise<void> | undefined): Promise<Step> {
    const turn = linked(this.#signal);
    const { signal } = turn;
    const inFlight = new Set<Promise<void>>();
    let outcome: Step = { what: "open" };
    let failure: { readonly error: unknown } | undefined;
    const end = () => turn.abort();
    let isStored = false;
    const take = (step: Step) => {
      if (signal.aborted) return;
      this.#wasOpen ||= step.what === "open" || step.what === "verifying";
      if (isStored && this.#wasOpen) step = { what: "stored" };
      // Answers may overtake each other: Open after Stored says nothing.
      if (step.what === "open") return;
      outcome = step;
      if (step.what !== "verifying") end();
    };
    void this.#storedHeard.then(() => {
      isStored = true;
      if (this.#wasOpen) take({ what: "stored" });
    });
    const fail = (error: unknown) => {
      if (signal.aborted) return;
      failure = { error };
      end();
    };
    for (const [nth, index] of indexes.entries()) {
      // More than a few in vain would take longer than an answer.
      if (nth === UNASKED_MAX && elsewhere) await orAborted(elsewhere, signal).catch(fail);
      if (elsewhere && this.#has.has(index)) continue;
      const slot = await this.#slot(index, signal).catch(fail);
      if (!slot) break;
      if (signal.aborted) {
        slot.done({ end: "other" });
        break;
      }
      const own = linked(signal);
      const pushing = this.#push(index, slot, own.signal).then(take, fail);
      inFlight.add(pushing);
      void pushing.finally(() => {
        own.release();
        inFlight.delete(pushing);
      });
    }
    const asking = signal.aborted || indexes.length === 1 ? undefined : linked(signal);
    if (asking) void this.#askOn(asking.signal).catch(() => {});
    await Promise.all(inFlight);
    asking?.abort();
    asking?.release();
    turn.release();
    this.#signal?.throwIfAborted();
    if (failure) throw failure.error;
    return outcome;
  }

  /**
   * Asks again and again, without waiting for the answers, whether the bucket has the whole, while the last chunks are on
   * their way: where an answer takes seconds, none more has to be waited for at the end. @throws the signal's reason
   */
  async #askOn(signal: AbortSignal): Promise<void> {
    const hear = (status: UploadStatus | undefined) => {
      if (status && caseOf(status.state) === "Stored") this.#hearStored();
    };
    for (let n = 0, ms = ASK_MS; n < ASKS_MAX; n++, ms *= ASK_GROWTH) {
      await sleep(ms, signal);
      // What goes wrong here goes wrong at the end too, and is told there.
      this.#status().then(hear, () => {});
    }
  }

  /** Pushes one chunk until it is in, or until it is clear that it will not be. */
  async #push(index: number, slot: Slot, signal: AbortSignal | undefined): Promise<Step> {
    const patience = new Patience(this.job.options.patienceMs);
    this.#patiences.add(patience);
    const turn = () => patience.free(() => this.#slot(index, signal));
    let registered = false;
    try {
      for (let attempt = 0, held = slot; ; held = await turn()) {
        const met = await this.#try(index, attempt, held, signal);
        if (met.what === "unknown" && registered) throw met.error;
        if (met.what === "unknown") {
          registered = true;
          await this.job.register();
        } else if (met.what === "again") {
          attempt++;
          await this.#paused(patience, met, signal);
        } else if (met.what !== "crowded") {
          return met;
        }
      }
    } finally {
      this.#patiences.delete(patience);
    }
  }

  /** Waits before the same chunk is sent again. An error is the network's, a sentence the bucket's. */
  async #paused(patience: Patience, { last, askedMs }: Again, signal: AbortSignal | undefined): Promise<void> {
    if (last instanceof Error) this.#waits(true);
    await patience.pause(last, signal, askedMs);
  }

  #waits(isWaiting: boolean): void {
    if (this.#isWaiting !== isWaiting) this.job.options.onWaiting?.(isWaiting);
    this.#isWaiting = isWaiting;
  }

  /** One try, in a slot which it gives back. */
  async #try(
    index: number,
    attempt: number,
    slot: Slot,
    signal: AbortSignal | undefined,
  ): Promise<Step | Again | Crowded | Unknown> {
    try {
      const answer = await this.#send(index, attempt, slot, signal);
      this.#waits(false);
      if ("Err" in answer) return this.#refused(answer.Err);
      slot.done({ end: "arrived", bytes: this.#bytesOf(index) });
      for (const patience of this.#patiences) patience.renew();
      this.#bytesOut.delete(index);
      this.#arrived(index);
      this.#tell();
      const gone = payloadOf(answer.Ok.state, "Gone");
      if (gone) throw uploadGone(caseOf(gone));
      return { what: STATES[caseOf(answer.Ok.state)] ?? "open" };
    } catch (error) {
      if (error instanceof CrowdedOut) return { what: "crowded" };
      if (!(error instanceof CallError)) throw error;
      if (error.kind === "transient") {
        slot.done({ end: "lost" });
        return { what: "again", last: error };
      }
      const failed = this.job.bucket.failed("push_chunk", error);
      if (error.kind !== "refused") throw failed;
      // A bucket turns large messages of callers away whom it does not know.
      return { what: "unknown", error: failed };
    } finally {
      this.#bytesOut.delete(index);
      slot.done({ end: "other" });
    }
  }

  async #send(index: number, attempt: number, slot: Slot, signal: AbortSignal | undefined) {
    const { bucket, source, blobId, mimeType, name, accessorIds } = this.job;
    const { start, end } = chunkAt(source.size, index);
    const args = {
      blob_id: blobIdToBytes(blobId),
      size: BigInt(source.size),
      mime_type: mimeType,
      name: name === undefined ? ([] as []) : ([name] as [string]),
      chunk_index: index,
      bytes: new Uint8Array(0),
      accessor_ids: [...accessorIds],
    };
    const bytes = { field: "bytes", byteLength: end - start, read: (into: Uint8Array<ArrayBuffer>) => readInto(source, start, into) };
    const watch: Watch = {
      onSent: (sent, of) => {
        // A message is little more than its chunk.
        const out = Math.floor((end - start) * (sent / of));
        slot.sent(out);
        this.#bytesOut.set(index, out);
        const nowMs = performance.now();
        if (nowMs - this.#toldMs < TELL_MS) return;
        this.#toldMs = nowMs;
        this.#tell();
      },
      look: () => {
        const verdict = slot.verdict(attempt);
        if (verdict === "crowded") throw new CrowdedOut();
        if (verdict === "lost") throw new CallError("transient", "no answer, and nothing moves any more");
      },
    };
    return bucket.attempt("push_chunk", [args], watch, signal, bytes);
  }

  #needed(indexes: Uint32Array | readonly number[]): readonly number[] {
    return Array.from(indexes, (index) => chunkAt(this.job.source.size, index).index);
  }

  /** @throws what the refusal means, where trying again does not help */
  #refused(error: PushChunkError): Step | Again | Unknown {
    const needed = payloadOf(error, "ChunkNeeded");
    if (needed) return { what: "needed", indexes: this.#needed(needed.indexes) };
    if ("NotRegistered" in error) {
      return { what: "unknown", error: refusal(error, this.#subject) };
    }
    const retry = payloadOf(error, "Retry");
    if (retry) {
      return { what: "again", last: "the bucket asked to wait", askedMs: Number(retry.ms) };
    }
    // Other uploads' chunks may free or grow it.
    if ("StorageFull" in error) {
      return { what: "again", last: "the bucket's memory cannot grow now" };
    }
    const full = payloadOf(error, "BucketFull");
    if (full) throw new BucketFull(Number(full.bytes_arrived));
    throw refusal(error, this.#subject);
  }

  /** Waits while the bucket verifies; the chunks that it misses, or none when the blob is stored. */
  async #settled(): Promise<readonly number[] | undefined> {
    const patience = new Patience(this.job.options.patienceMs);
    let slices = 0;
    for (;;) {
      const asked = this.#status();
      asked.catch(() => {});
      const status = await Promise.race([asked, this.#storedHeard.then((): typeof STORED => STORED)]);
      if (status === STORED) return undefined;
      // Nothing is left of it, not even a reason: the bucket was installed anew.
      if (!status) return this.#all();
      const gone = payloadOf(status.state, "Gone");
      if (gone) throw uploadGone(caseOf(gone));
      const state = caseOf(status.state);
      if (state === "Stored") return undefined;
      if (state === "Open") {
        const missing = this.#indexes(status);
        // Nothing is missing: any chunk again makes the bucket look at it.
        return missing.length > 0 ? missing : [0];
      }
      this.job.onBytes("verifying", this.job.source.size);
      // A large blob takes the bucket many slices: as many as its size explains are no lack of progress.
      if (slices++ < this.job.source.size / VERIFIED_BYTES_MIN) patience.renew();
      await patience.pause("the bucket is verifying", this.job.options.signal);
    }
  }

  #status(): Promise<UploadStatus | undefined> {
    return statusOf(this.job.bucket, this.job.blobId, this.job.options);
  }
}

/** Where the caller's upload stands; `undefined` where there is none. */
export async function statusOf(bucket: Canister<Bucket>, blobId: BlobId, options: CallOptions): Promise<UploadStatus | undefined> {
  const answer = await bucket.call("upload_status", [{ blob_id: blobIdToBytes(blobId) }], options);
  return "Ok" in answer ? answer.Ok : undefined;
}

/** Chunks that may be on their way before it is known which ones the bucket has. */
const UNASKED_MAX = 4;

/** While the last chunks are on their way the bucket is asked whether it has the whole: at first after so long. */
const ASK_MS = 500;
/** Each further time comes later by this factor: ten times are a minute. */
const ASK_GROWTH = 1.5;
const ASKS_MAX = 10;
/** The bucket has said so. */
const STORED = "stored" as const;

/** Bytes that go out are told of this often. */
const TELL_MS = 100;

/** A bucket that verifies does at least so much between two questions. */
const VERIFIED_BYTES_MIN = 2_500_000;

