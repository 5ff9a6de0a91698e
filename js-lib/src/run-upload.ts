/** From bytes to a reference: hash, bucket, chunks. */

import { type BlobId, blobIdToBytes } from "./blob.js";
import type { AllocatedBucketOk } from "./candid/data_bucket_index.did.js";
import { checkSize, chunkCount } from "./chunks.js";
import type { Context } from "./context.js";
import { encryptedSource } from "./encryption.js";
import { isOpenStorageError, OpenStorageError } from "./errors.js";
import type { HashProgress } from "./hash.js";
import { type Input, inputOf } from "./input.js";
import { EXCLUDE_MAX, PLAIN_TYPE } from "./limits.js";
import { BucketFull, push, statusOf } from "./push.js";
import { type BlobReference, toPrincipal } from "./reference.js";
import { caseOf, refusal } from "./refusals.js";
import { type ResumeRecord, resumeKey } from "./resume.js";
import { Patience, sleep } from "./retry.js";
import type { Source } from "./source.js";
import type { Control, UploadData, UploadOptions } from "./upload.js";

/** A smaller file is hashed sooner than the index answers. */
const EARLY_BYTES_MIN = 16_000_000;

/** One run of an upload, with what it has found out so far. */
export class UploadRun {
  readonly #input: Input;
  #placed: { readonly bucket: string; readonly key: string; readonly blobId: BlobId } | undefined;

  /** @throws for options that cannot be right, before anything runs */
  constructor(
    private readonly context: Context,
    data: UploadData,
    private readonly options: UploadOptions,
  ) {
    this.#input = inputOf(data, options);
  }

  async run(control: Control): Promise<BlobReference> {
    const { uploads, platform } = this.context.parts;
    const place = new Place(uploads, control);
    await place.take();
    const early = this.#refusedEarly(control.signal);
    let release = async () => {};
    try {
      let source = this.#input.source as Source;
      if (!("slice" in source)) {
        const spooled = await platform.spool(source, early.signal);
        source = spooled.source;
        release = () => spooled.release();
      }
      const encrypted = await this.#encrypted(source);
      const blobId = await this.#hash(encrypted, control, early.signal);
      early.end();
      return await this.#send(encrypted, blobId, control, place);
    } finally {
      early.end();
      place.give();
      await release();
    }
  }

  /**
   * A signal for what comes before the first question to the index: copying and hashing a large file takes its time, and
   * what is larger than the caller's whole allowance is refused meanwhile.
   */
  #refusedEarly(signal: AbortSignal): { readonly signal: AbortSignal; end(): void } {
    const { index, parts } = this.context;
    const { size } = this.#input.source;
    const ended = new AbortController();
    const both = AbortSignal.any([signal, ended.signal]);
    const about = { canister: index.id, method: "user", size };
    const ask = async () => {
      const answer = await index.call("user", [[]], { signal: both, patienceMs: parts.patienceMs });
      if ("Err" in answer) return ended.abort(refusal(answer.Err, about));
      const { byte_limit } = answer.Ok;
      if (size > byte_limit) ended.abort(refusal({ AllowanceExceeded: { byte_limit } }, about));
    };
    // What goes wrong here is met again, and told, when the bucket is asked for.
    if (size > EARLY_BYTES_MIN) void ask().catch(() => {});
    return { signal: both, end: () => ended.abort() };
  }

  #hash(source: Source, { onBytes }: Control, signal: AbortSignal): Promise<BlobId> {
    const { platform, hashes } = this.context.parts;
    const told = ({ bytesDone, bytesTotal }: HashProgress) => onBytes("hashing", bytesDone, bytesTotal);
    return hashes.run(() => platform.hash(source, { signal, onProgress: told }), signal);
  }

  /** Gives back what was sent: drops the chunks, and forgets the upload. */
  async discard(signal?: AbortSignal): Promise<void> {
    if (!this.#placed) return;
    const { bucket, key, blobId } = this.#placed;
    await discardUpload(this.context, bucket, blobId, signal);
    await this.context.parts.resumeStore.delete(key);
  }

  async #encrypted(source: Source): Promise<Source> {
    const { encryptFor } = this.options;
    if (!encryptFor) return source;
    const { mimeType, name } = this.#input;
    const described = name === undefined ? { mimeType } : { mimeType, name };
    return encryptedSource(source, described, [encryptFor].flat());
  }

  async #send(source: Source, blobId: BlobId, control: Control, place: Place): Promise<BlobReference> {
    const size = checkSize(source.size);
    control.onBlobId(blobId);
    const record = await this.#record(blobId, size);
    const bucket = await this.#push(source, record, control, place);
    return { blobId, bucket, size, mimeType: record.mimeType };
  }

  /** What is remembered of the upload; the bucket is filled in once there is one. */
  async #record(blobId: BlobId, size: number): Promise<Omit<ResumeRecord, "bucket">> {
    const isHidden = this.options.encryptFor !== undefined;
    const { name, accessorIds } = this.#input;
    return {
      principal: (await this.context.principal()).toText(),
      index: this.context.index.id,
      blobId,
      size,
      // Type and name of an encrypted blob are inside.
      mimeType: isHidden ? PLAIN_TYPE : this.#input.mimeType,
      ...(name !== undefined && !isHidden && { name }),
      accessorIds: accessorIds.map((id) => id.toText()),
      startedMs: Date.now(),
    };
  }

  /** Until a bucket has it all; that bucket. */
  async #push(
    source: Source,
    record: Omit<ResumeRecord, "bucket">,
    control: Control,
    place: Place,
  ): Promise<string> {
    const { resumeStore, patienceMs, pushPace } = this.context.parts;
    const { blobId, size } = record;
    const key = resumeKey(record);
    let earlier = (await resumeStore.get(key))?.bucket;
    const mayResume = chunkCount(size) > 1;
    const exclude: string[] = [];
    for (;;) {
      const guess = mayResume && !earlier && exclude.length === 0 ? this.context.lastBucket : undefined;
      // One answer is waited for, not two.
      const asked = guess === undefined ? undefined : statusOf(this.context.bucket(guess), blobId, { signal: control.signal, patienceMs });
      // Whoever needs the answer hears of a failure.
      asked?.catch(() => {});
      const found = earlier ? { bucket: earlier, stored: false } : await this.#allocate(record, exclude, control);
      const { bucket } = found;
      this.context.lastBucket = bucket;
      this.#placed = { bucket, key, blobId };
      const options = { signal: control.signal, patienceMs, onWaiting: control.onWaiting };
      try {
        // One chunk is in or not: there is nothing to go on with.
        if (mayResume) await resumeStore.put(key, { ...record, bucket });
        await push({
          bucket: this.context.bucket(bucket),
          source,
          blobId,
          mimeType: record.mimeType,
          name: record.name,
          accessorIds: this.#input.accessorIds,
          pace: pushPace,
          options,
          isStored: found.stored,
          asked: guess === bucket ? asked : undefined,
          resumes: !mayResume ? "no" : earlier ? "likely" : "perhaps",
          register: () => this.context.register(bucket),
          open: () => place.open(),
          onBytes: (phase, bytesDone) => control.onBytes(phase, bytesDone, size),
        });
        await resumeStore.delete(key);
        return bucket;
      } catch (error) {
        if (!(error instanceof BucketFull)) {
          await this.#giveUp(error);
          throw error;
        }
        // Two buckets would hold the allowance.
        if (error.bytesArrived > 0) await discardUpload(this.context, bucket, blobId, control.signal);
        // The index did not know yet; another bucket has room.
        if (!earlier) exclude.push(bucket);
        earlier = undefined;
      }
    }
  }

  /** What cannot go on is not offered again, and takes no room. A file that cannot be read may be back tomorrow. */
  async #giveUp(error: unknown): Promise<void> {
    if (!isOpenStorageError(error) || error.code === "SourceUnreadable") return;
    const ends = error.kind === "source" || error.kind === "conflict";
    // Before the error is told: whoever uploads again at once begins anew.
    if (ends) await this.discard(AbortSignal.timeout(GIVE_UP_MS)).catch(() => {});
  }

  /** The bucket for the blob. Waits while the index makes one. */
  async #allocate(
    { blobId, size }: Omit<ResumeRecord, "bucket">,
    exclude: readonly string[],
    { signal, onWaiting }: Control,
  ): Promise<{ bucket: string; stored: boolean }> {
    const { patienceMs } = this.context.parts;
    if (exclude.length > EXCLUDE_MAX) throw noBucketWithRoom(exclude.length);
    const patience = new Patience(patienceMs);
    const args = {
      blob_id: blobIdToBytes(blobId),
      size: BigInt(size),
      exclude: exclude.map((id) => toPrincipal(id, "exclude")),
    };
    for (;;) {
      const answer = await this.context.index.call("allocated_bucket", [args], { signal, patienceMs, onWaiting });
      if ("Ok" in answer) return placed(answer.Ok);
      if (!("NoActiveBucket" in answer.Err)) {
        throw refusal(answer.Err, { canister: this.context.index.id, method: "allocated_bucket", blobId, size });
      }
      if (exclude.length > 0) throw noBucketWithRoom(exclude.length);
      await patience.pause("no bucket with room is ready", signal);
    }
  }
}

function placed({ bucket, stored }: AllocatedBucketOk): { bucket: string; stored: boolean } {
  return { bucket: bucket.toText(), stored };
}

/** An upload's place among those that do something; left while it is paused. */
class Place {
  #isTaken = false;
  #returning: Promise<void> | undefined;

  constructor(
    private readonly uploads: Context["parts"]["uploads"],
    private readonly control: Control,
  ) {}

  async take(): Promise<void> {
    await this.uploads.enter(this.control.signal);
    this.#isTaken = true;
  }

  give(): void {
    if (this.#isTaken) this.uploads.leave();
    this.#isTaken = false;
  }

  /** Resolves at once while the upload is not paused, else when it goes on. @throws the signal's reason */
  open(): Promise<void> {
    const { gate } = this.control;
    if (gate.isOpen && !this.#returning) return Promise.resolve();
    this.#returning ??= this.#return().finally(() => {
      this.#returning = undefined;
    });
    return this.#returning;
  }

  async #return(): Promise<void> {
    this.give();
    await this.control.gate.passed();
    await this.take();
  }
}

/** How often an upload that is to go is looked for again: a chunk that was on its way may open it anew. */
const DISCARD_TRIES = 3;
const DISCARD_WAIT_MS = 300;
/** How long an upload that has failed waits for its chunks to go; what stays is listed as unfinished. */
const GIVE_UP_MS = 5_000;

/** Makes a bucket drop the chunks of an unfinished upload. */
export async function discardUpload(context: Context, bucketId: string, blobId: BlobId, signal?: AbortSignal): Promise<void> {
  const bucket = context.bucket(bucketId);
  const options = { signal, patienceMs: context.parts.patienceMs };
  const args = { blob_id: blobIdToBytes(blobId) };
  for (let tries = 0; tries < DISCARD_TRIES; tries++) {
    await bucket.call("abort_upload", [args], options);
    await sleep(DISCARD_WAIT_MS, signal);
    const answer = await bucket.call("upload_status", [args], options);
    const isOpen = "Ok" in answer && ["Open", "Verifying"].includes(caseOf(answer.Ok.state));
    if (!isOpen) return;
  }
}

function noBucketWithRoom(excluded: number): OpenStorageError<"NoBucketWithRoom"> {
  const message = `no bucket has room for the blob, and ${excluded} were full: the index makes another; try again in a minute`;
  return new OpenStorageError("NoBucketWithRoom", message, { excluded });
}
