/** From bytes to a reference: hash, bucket, chunks. */

import type { Principal } from "@icp-sdk/core/principal";

import { type BlobId, blobIdToBytes } from "./blob.js";
import type { AllocatedBucketOk } from "./candid/data_bucket_index.did.js";
import { checkSize, chunkCount } from "./chunks.js";
import type { Context } from "./context.js";
import { encryptedSource } from "./encryption.js";
import { isOpenStorageError, OpenStorageError } from "./errors.js";
import { ACCESSORS_MAX, EXCLUDE_MAX, MIME_TYPE_BYTES_MAX, NAME_BYTES_MAX } from "./limits.js";
import { BucketFull, push } from "./push.js";
import { type BlobReference, toPrincipal } from "./reference.js";
import { caseOf, invalidAccessors, invalidMimeType, invalidName, refusal } from "./refusals.js";
import { type ResumeRecord, resumeKey } from "./resume.js";
import { Patience, sleep } from "./retry.js";
import { type Source, type StreamSource, sourceOf, sourceOfStream } from "./source.js";
import type { Control, UploadData, UploadOptions } from "./upload.js";
import type { PrincipalLike } from "./url.js";

/** What an upload says about its blob, checked. */
interface Named {
  readonly mimeType: string;
  readonly name: string | undefined;
  readonly accessorIds: readonly Principal[];
}

/** One run of an upload, with what it has found out so far. */
export class UploadRun {
  readonly #named: Named;
  readonly #input: StreamSource;
  #placed: { readonly bucket: string; readonly key: string; readonly blobId: BlobId } | undefined;

  /** @throws for options that cannot be right, before anything runs */
  constructor(
    private readonly context: Context,
    data: UploadData,
    private readonly options: UploadOptions,
  ) {
    this.#input = inputOf(data, options.size);
    this.#named = namedOf(data, options);
    checkSize(this.#input.size);
  }

  async run(control: Control): Promise<BlobReference> {
    const { uploads, platform } = this.context.parts;
    const place = new Place(uploads, control);
    await place.take();
    let release = async () => {};
    try {
      let source = this.#input as Source;
      if (!("slice" in this.#input)) {
        const spooled = await platform.spool(this.#input, control.signal);
        source = spooled.source;
        release = () => spooled.release();
      }
      return await this.#send(await this.#encrypted(source), control, place);
    } finally {
      place.give();
      await release();
    }
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
    const { mimeType, name } = this.#named;
    const described = name === undefined ? { mimeType } : { mimeType, name };
    return encryptedSource(source, described, [encryptFor].flat());
  }

  async #send(source: Source, control: Control, place: Place): Promise<BlobReference> {
    const { platform, hashes } = this.context.parts;
    const { signal } = control;
    const size = checkSize(source.size);
    const told = ({ bytesDone }: { bytesDone: number }) => control.onBytes("hashing", bytesDone, size);
    const hash = () => platform.hash(source, { signal, onProgress: told });
    const blobId = await hashes.run(hash, signal);
    control.onBlobId(blobId);
    const record = await this.#record(blobId, size);
    const bucket = await this.#push(source, record, control, place);
    return { blobId, bucket, size, mimeType: record.mimeType };
  }

  /** What is remembered of the upload; the bucket is filled in once there is one. */
  async #record(blobId: BlobId, size: number): Promise<Omit<ResumeRecord, "bucket">> {
    const isHidden = this.options.encryptFor !== undefined;
    const { name, accessorIds } = this.#named;
    return {
      principal: (await this.context.principal()).toText(),
      index: this.context.index.id,
      blobId,
      size,
      // Type and name of an encrypted blob are inside.
      mimeType: isHidden ? "application/octet-stream" : this.#named.mimeType,
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
    const exclude: string[] = [];
    for (;;) {
      const found = earlier ? { bucket: earlier, stored: false } : await this.#allocate(record, exclude, control);
      const { bucket } = found;
      this.#placed = { bucket, key, blobId };
      const options = { signal: control.signal, patienceMs };
      try {
        // One chunk is in or not: there is nothing to go on with.
        if (chunkCount(size) > 1) await resumeStore.put(key, { ...record, bucket });
        await push({
          bucket: this.context.bucket(bucket),
          source,
          blobId,
          mimeType: record.mimeType,
          name: record.name,
          accessorIds: this.#named.accessorIds,
          pace: pushPace,
          options,
          isStored: found.stored,
          mayResume: chunkCount(size) > 1,
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
    { signal }: Control,
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
      const answer = await this.context.index.call("allocated_bucket", [args], { signal, patienceMs });
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

function inputOf(data: UploadData, size: number | undefined): StreamSource {
  if (data instanceof ReadableStream) {
    if (size !== undefined) return sourceOfStream(data, size);
    const message = "a stream is uploaded with its size: pass the option size, in bytes";
    throw new OpenStorageError("InvalidOption", message, { option: "size" });
  }
  if (ArrayBuffer.isView(data) || data instanceof Blob) return sourceOf(data);
  if (typeof data === "object" && typeof data?.stream === "function") return data;
  const message = "what is uploaded is a File, a Blob, a Uint8Array, a stream or a source";
  throw new OpenStorageError("InvalidOption", message, { option: "data" });
}

const MIME_TYPE = /^[A-Za-z0-9!#$&^_.+-]+\/[A-Za-z0-9!#$&^_.+-]+$/;
const CONTROL = /\p{Cc}/u;

function namedOf(data: UploadData, options: UploadOptions): Named {
  // A file's type may have parameters, such as a charset; a blob's has none.
  const own = data instanceof Blob ? data.type.split(";", 1)[0]?.trim() : "";
  const mimeType = options.mimeType ?? (own || "application/octet-stream");
  if (mimeType.length > MIME_TYPE_BYTES_MAX || !MIME_TYPE.test(mimeType)) {
    throw invalidMimeType(MIME_TYPE_BYTES_MAX);
  }
  const name = options.name ?? ("name" in data && data instanceof Blob ? String(data.name) : undefined);
  if (name !== undefined) checkName(name);
  return { mimeType, name, accessorIds: accessorsOf(options.accessorIds) };
}

function checkName(name: string): void {
  const bytes = new TextEncoder().encode(name).byteLength;
  if (bytes < 1 || bytes > NAME_BYTES_MAX || CONTROL.test(name)) throw invalidName(NAME_BYTES_MAX);
}

/** @throws `InvalidAccessors`, `InvalidPrincipal` */
export function accessorsOf(ids: readonly PrincipalLike[] | undefined): readonly Principal[] {
  if (!Array.isArray(ids)) throw invalidAccessors(ACCESSORS_MAX);
  const accessors = ids.map((id) => toPrincipal(id, "accessorIds"));
  const nobody = ["aaaaa-aa", "2vxsx-fae"];
  const isOne = accessors.length >= 1 && accessors.length <= ACCESSORS_MAX;
  if (isOne && !accessors.some((id) => nobody.includes(id.toText()))) return accessors;
  throw invalidAccessors(ACCESSORS_MAX);
}
