/** One upload: what the app holds while it runs. */

import type { BlobId } from "./blob.js";
import { clock } from "./clock.js";
import { Gate } from "./gate.js";
import type { KeyProvider } from "./keys.js";
import { Meter, type Phase, type Progress } from "./progress.js";
import type { BlobReference } from "./reference.js";
import type { StreamSource } from "./source.js";
import type { PrincipalLike } from "./url.js";

/**
 * What can be uploaded: a `File` or `Blob`, bytes, text (in UTF-8), a stream or whatever else gives pieces of bytes one
 * after another, such as a `Readable` of Node, or a source. A stream needs {@link UploadOptions.size}, and is copied
 * before it is sent. Bytes in memory must not change until the upload has ended.
 */
export type UploadData =
  | Blob
  | ArrayBufferLike
  | ArrayBufferView
  | string
  | ReadableStream<Uint8Array>
  | AsyncIterable<Uint8Array>
  | StreamSource;

export interface UploadOptions {
  /** Who may see the blob: 1 to 32 principals, such as the `accessor_id` of a chat. */
  readonly accessorIds: readonly PrincipalLike[];
  /** `type/subtype`, in any case. Without it: the file's own type, or `application/octet-stream`. */
  readonly mimeType?: string;
  /** A file name for downloads. Without it: the file's own, or none. */
  readonly name?: string;
  /** Bytes of a stream. */
  readonly size?: number;
  /** Called often; what it throws ends the upload. */
  readonly onProgress?: (progress: Progress) => void;
  /** An abort stops the upload; what is in stays for a day, and the same upload goes on from there. */
  readonly signal?: AbortSignal;
  /**
   * Encrypts before anything is sent, under a fresh key that is wrapped for each of these. Encrypted
   * bytes are different every time: nothing is deduplicated, and after a reload an upload begins anew.
   */
  readonly encryptFor?: KeyProvider | readonly KeyProvider[];
}

/**
 * - `running`: hashing, sending, verifying, or waiting for its turn.
 * - `paused`: no new chunk is sent.
 * - `done`, `failed`, `aborted`: it has ended.
 */
export type UploadState = "running" | "paused" | "done" | "failed" | "aborted";

/** What the work of an upload sees of its {@link Upload}. */
export interface Control {
  readonly signal: AbortSignal;
  readonly gate: Gate;
  onBlobId(blobId: BlobId): void;
  onBytes(phase: Phase, bytesDone: number, bytesTotal: number): void;
  /** Whether the network has failed, and is waited for. */
  onWaiting(isWaiting: boolean): void;
}

/**
 * A running upload. It begins by itself; `for await` over it gives its progress, {@link Upload.done} its
 * outcome.
 */
export class Upload implements AsyncIterable<Progress> {
  /** The reference to the blob, once the bucket has it all. */
  readonly done: Promise<BlobReference>;
  #progress: Progress = { phase: "hashing", bytesDone: 0, bytesTotal: 0, bytesPerSecond: 0, waiting: false };
  #state: Exclude<UploadState, "paused"> = "running";
  #blobId: BlobId | undefined;
  readonly #controller = new AbortController();
  readonly #gate = new Gate();
  /** What the app does with the progress has thrown. */
  #hasFailed = false;
  #givenBack: Promise<void> | undefined;
  #wake = () => {};
  #news: Promise<void>;

  /** @internal Made by `OpenStorage.upload`. */
  constructor(
    work: (control: Control) => Promise<BlobReference>,
    /** Gives back what was sent. */
    private readonly discard: () => Promise<void>,
    { signal, onProgress }: Pick<UploadOptions, "signal" | "onProgress">,
  ) {
    this.#news = this.#nextNews();
    const abort = () => this.#stop(signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    const meter = new Meter();
    const tell = (progress: Progress) => {
      if (this.#state !== "running" || this.#controller.signal.aborted) return;
      this.#progress = progress;
      this.#tell();
      try {
        onProgress?.(progress);
      } catch (error) {
        this.#hasFailed = true;
        this.#stop(error);
      }
    };
    // That nothing moves is news, too.
    const stop = clock.beats(() => {
      const progress = meter.now();
      const { waiting, bytesPerSecond } = this.#progress;
      if (progress.waiting !== waiting || progress.bytesPerSecond < bytesPerSecond) tell(progress);
    });
    const control: Control = {
      signal: this.#controller.signal,
      gate: this.#gate,
      onBlobId: (blobId) => {
        this.#blobId = blobId;
      },
      onBytes: (phase, bytesDone, bytesTotal) => tell(meter.read(phase, bytesDone, bytesTotal)),
      onWaiting: (isWaiting) => tell(meter.failing(isWaiting)),
    };
    this.done = work(control).then(
      (reference) => {
        this.#end("done");
        return reference;
      },
      (error: unknown) => {
        this.#end(this.#controller.signal.aborted && !this.#hasFailed ? "aborted" : "failed");
        throw error;
      },
    );
    const settled = () => {
      stop();
      signal?.removeEventListener("abort", abort);
    };
    this.done.then(settled, settled);
  }

  get state(): UploadState {
    return this.#state === "running" && !this.#gate.isOpen ? "paused" : this.#state;
  }

  /** The newest. */
  get progress(): Progress {
    return this.#progress;
  }

  /** Once the bytes have been hashed. */
  get blobId(): BlobId | undefined {
    return this.#blobId;
  }

  /** Sends no new chunk; those on their way arrive, and hashing goes on. */
  pause(): void {
    this.#gate.close();
    this.#tell();
  }

  resume(): void {
    this.#gate.open();
    this.#tell();
  }

  /**
   * Stops, and gives back what was sent together with the allowance reserved for it. {@link Upload.done}
   * rejects with an `AbortError` at once; this resolves when the bucket has dropped the chunks. An upload that has
   * failed gives back what it left there. To stop and go on later, abort the `signal` of the options instead.
   */
  abort(): Promise<void> {
    if (this.#state === "running") this.#stop(new DOMException("the upload was aborted", "AbortError"));
    // Whoever calls again waits for the chunks to go too.
    this.#givenBack ??= this.done.then(
      () => {},
      () => this.discard(),
    );
    // A network that is gone may be asked again, and does not end a program that has not waited.
    this.#givenBack.catch(() => (this.#givenBack = undefined));
    return this.#givenBack;
  }

  /** The progress as it comes: always the newest, none twice. Throws what {@link Upload.done} rejects with. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Progress, void, undefined> {
    // Whoever iterates hears of a failure here.
    this.done.catch(() => {});
    let seen: Progress | undefined;
    while (this.#state === "running") {
      const news = this.#news;
      if (seen !== this.#progress) {
        seen = this.#progress;
        yield seen;
      } else {
        await news;
      }
    }
    if (seen !== this.#progress && this.#state === "done") yield this.#progress;
    await this.done;
  }

  #stop(reason: unknown): void {
    this.#controller.abort(reason);
    this.#gate.open();
  }

  #end(state: "done" | "failed" | "aborted"): void {
    this.#state = state;
    this.#tell();
  }

  #tell(): void {
    this.#wake();
    this.#news = this.#nextNews();
  }

  #nextNews(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
