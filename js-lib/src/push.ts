/**
 * Chunks to a bucket, in parallel, and again where an earlier try ended.
 *
 * An upload is a loop around one question: which chunks does the bucket want? At first `upload_status`
 * answers it (all of them, or what an interrupted upload left), later what the pushes themselves met. The
 * first chunk of every turn goes alone: it finds out whether the bucket knows the caller, has room and
 * allowance, or has the blob already, before megabytes travel in vain.
 */

import type { Principal } from "@icp-sdk/core/principal";

import { type BlobId, blobIdToBytes } from "./blob.js";
import type { Canister, CallOptions } from "./canister.js";
import type { _SERVICE as Bucket, PushChunkError, UploadStatus } from "./candid/data_bucket.did.js";
import { chunkAt, chunkCount, planChunks } from "./chunks.js";
import type { OpenStorageError } from "./errors.js";
import { POSSESSION_CHUNKS_MAX } from "./limits.js";
import type { Pace, Slot } from "./pace.js";
import type { Phase } from "./progress.js";
import { caseOf, payloadOf, refusal, type Subject, uploadGone } from "./refusals.js";
import { Patience } from "./retry.js";
import { readInto, type Source } from "./source.js";
import { CallError } from "./transport.js";

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
  /** There may be something of an earlier upload to go on with. */
  readonly mayResume: boolean;
  /** Makes the bucket ask the index about the caller; once for all who wait for it. */
  register(): Promise<void>;
  /** Resolves while the upload is not paused. */
  open(): Promise<void>;
  onBytes(phase: Phase, bytesDone: number): void;
}

/** `BucketFull`: the caller asks the index for another bucket. */
export class BucketFull extends Error {}

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
  readonly last: string;
  readonly askedMs?: number;
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

class Push {
  readonly #subject: Subject;
  readonly #count: number;
  /** Of the chunks that are being sent: one that arrives is progress of the whole. */
  readonly #patiences = new Set<Patience>();
  #bytesDone = 0;

  constructor(private readonly job: PushJob) {
    const { bucket, blobId, source } = job;
    this.#subject = { canister: bucket.id, method: "push_chunk", blobId, size: source.size };
    this.#count = chunkCount(source.size);
  }

  async run(): Promise<void> {
    const patience = new Patience(this.job.options.patienceMs);
    let wanted = await this.#firstPlan();
    // The fewest chunks that were ever missing: only less than that is progress, so this ends.
    let fewest = this.job.isStored ? Number.POSITIVE_INFINITY : wanted.length;
    for (;;) {
      const step = await this.#pushAll(wanted);
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
    }
    this.#tell("uploading", this.job.source.size);
  }

  #tell(phase: Phase, bytesDone: number): void {
    this.#bytesDone = bytesDone;
    this.job.onBytes(phase, bytesDone);
  }

  /**
   * The chunks to send at first: what an interrupted upload left, what the bucket wants to see of a blob that it has,
   * or all. Never none: the first push also names the accessors.
   */
  async #firstPlan(): Promise<readonly number[]> {
    const { isStored, mayResume, source } = this.job;
    let status = mayResume ? await this.#status() : undefined;
    if (!status && isStored && this.#count > POSSESSION_CHUNKS_MAX) {
      // To whom it does not know the bucket says nothing; a call is cheaper than a chunk in vain.
      await this.job.register();
      status = await this.#status();
    }
    const state = status && caseOf(status.state);
    if (status && state === "Open") {
      const wanted = this.#indexes(status);
      const missingBytes = wanted.reduce((sum, index) => sum + this.#bytesOf(index), 0);
      this.#tell("uploading", source.size - missingBytes);
      return wanted.length > 0 ? wanted : [0];
    }
    // The last chunk may be short: the cheapest way to name the accessors.
    return state === "Stored" || state === "Verifying" ? [this.#count - 1] : this.#all();
  }

  #all(): readonly number[] {
    this.#tell("uploading", 0);
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

  /** The first alone, the others in parallel. Ends early when one of them says that the rest is not wanted. */
  async #pushAll(wanted: readonly number[]): Promise<Step> {
    const [first, ...others] = wanted;
    const step = await this.#push(first ?? 0, await this.#slot(first ?? 0, this.#signal), this.#signal);
    if (step.what !== "open" || others.length === 0) return step;
    return this.#pushParallel(others);
  }

  get #signal(): AbortSignal | undefined {
    return this.job.options.signal;
  }

  async #slot(index: number, signal: AbortSignal | undefined): Promise<Slot> {
    await this.job.open();
    return this.job.pace.slot(this.#bytesOf(index), signal);
  }

  async #pushParallel(indexes: readonly number[]): Promise<Step> {
    const turn = new AbortController();
    const signal = this.#signal ? AbortSignal.any([this.#signal, turn.signal]) : turn.signal;
    const inFlight = new Set<Promise<void>>();
    let outcome: Step = { what: "open" };
    let failure: { readonly error: unknown } | undefined;
    const end = () => turn.abort();
    const take = (step: Step) => {
      // Answers may overtake each other: Open after Stored says nothing.
      if (turn.signal.aborted || step.what === "open") return;
      outcome = step;
      if (step.what !== "verifying") end();
    };
    const fail = (error: unknown) => {
      if (turn.signal.aborted) return;
      failure = { error };
      end();
    };
    for (const index of indexes) {
      const slot = await this.#slot(index, signal).catch(fail);
      if (!slot) break;
      const pushing = this.#push(index, slot, signal).then(take, fail);
      inFlight.add(pushing);
      void pushing.finally(() => inFlight.delete(pushing));
    }
    await Promise.all(inFlight);
    if (failure) throw failure.error;
    return outcome;
  }

  /** Pushes one chunk until it is in, or until it is clear that it will not be. */
  async #push(index: number, slot: Slot, signal: AbortSignal | undefined): Promise<Step> {
    const patience = new Patience(this.job.options.patienceMs);
    this.#patiences.add(patience);
    const turn = () => patience.free(() => this.#slot(index, signal));
    let registered = false;
    try {
      for (let attempt = 0, held = slot; ; attempt++, held = await turn()) {
        const met = await this.#try(index, attempt, held, signal);
        if (met.what === "unknown" && registered) throw met.error;
        if (met.what === "unknown") {
          registered = true;
          await this.job.register();
        } else if (met.what === "again") {
          await patience.pause(met.last, signal, met.askedMs);
        } else {
          return met;
        }
      }
    } finally {
      this.#patiences.delete(patience);
    }
  }

  /** One try, in a slot which it gives back. */
  async #try(
    index: number,
    attempt: number,
    slot: Slot,
    signal: AbortSignal | undefined,
  ): Promise<Step | Again | Unknown> {
    try {
      const answer = await this.#send(index, this.job.pace.stallMs(attempt), signal);
      if ("Err" in answer) return this.#refused(answer.Err);
      slot.done({ end: "arrived", bytes: this.#bytesOf(index) });
      for (const patience of this.#patiences) patience.renew();
      this.#tell("uploading", this.#bytesDone + this.#bytesOf(index));
      const gone = payloadOf(answer.Ok.state, "Gone");
      if (gone) throw uploadGone(caseOf(gone));
      return { what: STATES[caseOf(answer.Ok.state)] ?? "open" };
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      if (error.kind === "transient") {
        slot.done({ end: "lost" });
        return { what: "again", last: error.message };
      }
      const failed = this.job.bucket.failed("push_chunk", error);
      if (error.kind !== "refused") throw failed;
      // A bucket turns large messages of callers away whom it does not know.
      return { what: "unknown", error: failed };
    } finally {
      slot.done({ end: "other" });
    }
  }

  async #send(index: number, limitMs: number, signal: AbortSignal | undefined) {
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
    return bucket.attempt("push_chunk", [args], limitMs, signal, bytes);
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
    if ("BucketFull" in error) throw new BucketFull();
    throw refusal(error, this.#subject);
  }

  /** Waits while the bucket verifies; the chunks that it misses, or none when the blob is stored. */
  async #settled(): Promise<readonly number[] | undefined> {
    const patience = new Patience(this.job.options.patienceMs);
    let slices = 0;
    for (;;) {
      const status = await this.#status();
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
      this.#tell("verifying", this.job.source.size);
      // A large blob takes the bucket many slices: as many as its size explains are no lack of progress.
      if (slices++ < this.job.source.size / VERIFIED_BYTES_MIN) patience.renew();
      await patience.pause("the bucket is verifying", this.job.options.signal);
    }
  }

  /** Where the upload stands; `undefined` where there is none. */
  async #status(): Promise<UploadStatus | undefined> {
    const args = { blob_id: blobIdToBytes(this.job.blobId) };
    const answer = await this.job.bucket.call("upload_status", [args], this.job.options);
    return "Ok" in answer ? answer.Ok : undefined;
  }
}

/** A bucket that verifies does at least so much between two questions. */
const VERIFIED_BYTES_MIN = 2_500_000;

