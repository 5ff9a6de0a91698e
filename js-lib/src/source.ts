/**
 * Where a blob's bytes come from. The rest of the library knows these two interfaces only; a file
 * on disk is in `node.ts`.
 */

import { checkRange, checkSize } from "./chunks.js";
import { isOpenStorageError, OpenStorageError } from "./errors.js";

/** Bytes that can be read from the first to the last. */
export interface StreamSource {
  /** For messages: a file's name where there is one. */
  readonly name: string;
  /** Bytes. What {@link StreamSource.stream} gives is held to it. */
  readonly size: number;
  /** Where the bytes are a `Blob`: it can be handed to a worker. */
  readonly blob?: Blob;
  /** A new stream over all bytes. May fail with `SourceConsumed` when called again. */
  stream(): ReadableStream<Uint8Array>;
}

/** Bytes that can be read anywhere, any number of times. */
export interface Source extends StreamSource {
  /**
   * The bytes `start .. end` (the end not included) in memory. They belong to the source: do not
   * write to them.
   *
   * @throws `InvalidRange`; `SourceUnreadable`, `SourceChanged`
   */
  slice(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** Pieces in which a source in memory is streamed: 1 MB, a few milliseconds of hashing. */
const PIECE_BYTES = 1_000_000;

/**
 * A source over a `File`, a `Blob`, or bytes in memory. Nothing is copied; bytes in memory must not
 * change while the source is in use.
 *
 * @throws `BlobTooLarge`
 */
export function sourceOf(data: Blob | Uint8Array<ArrayBuffer>): Source {
  // Not `instanceof`: bytes may come from another frame, whose Uint8Array is another class.
  return ArrayBuffer.isView(data) ? new BytesSource(data) : new BlobSource(data);
}

/**
 * A source over a stream whose size is known, for instance from `Content-Length`. It can be read
 * once.
 *
 * @param size bytes that the stream will give
 * @throws `InvalidSize`, `BlobTooLarge`
 */
export function sourceOfStream(stream: ReadableStream<Uint8Array>, size: number): StreamSource {
  checkSize(size);
  const name = "a stream";
  let unread: ReadableStream<Uint8Array> | undefined = stream;
  return {
    name,
    size,
    stream() {
      const taken = unread;
      unread = undefined;
      if (taken && !taken.locked) return taken;
      throw new OpenStorageError("SourceConsumed", `${name} can be read once`, { name });
    },
  };
}

/**
 * All bytes of a source, piece by piece, exactly `source.size` of them.
 *
 * Leaving the loop early, an error and an abort each cancel the stream. A read that hangs does not
 * outlive an abort.
 *
 * @throws `SizeMismatch`, `SourceUnreadable`, and what the source throws; the signal's reason
 */
export async function* readPieces(
  source: StreamSource,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  signal?.throwIfAborted();
  const reader = source.stream().getReader();
  // Cancelling ends a pending read at once. What the stream says to being cancelled is of no use
  // to anyone any more.
  const cancel = () => void reader.cancel(signal?.reason).catch(() => {});
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    let received = 0;
    for (;;) {
      const piece = await read(reader, source.name);
      signal?.throwIfAborted();
      if (!piece) break;
      received += piece.byteLength;
      if (received > source.size) throw sizeMismatch(source, received);
      yield piece;
      signal?.throwIfAborted();
    }
    if (received < source.size) throw sizeMismatch(source, received);
  } finally {
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
}

/** An error of the source as this library words it. */
export function unreadable(name: string, cause: unknown): OpenStorageError<"SourceUnreadable"> {
  return new OpenStorageError("SourceUnreadable", `${name} cannot be read`, { name }, { cause });
}

/** The next piece; `undefined` at the end. */
async function read(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  name: string,
): Promise<Uint8Array | undefined> {
  const { done, value } = await reader.read().catch((cause: unknown) => {
    throw isOpenStorageError(cause) ? cause : unreadable(name, cause);
  });
  if (done) return undefined;
  // A stream is typed by its maker's word alone, and text would be hashed as something else.
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  throw unreadable(name, new TypeError("a piece of the stream is not bytes"));
}

function sizeMismatch(source: StreamSource, received: number): OpenStorageError<"SizeMismatch"> {
  const expected = source.size;
  const message = `${source.name} should have ${expected} bytes and gave ${received}`;
  return new OpenStorageError("SizeMismatch", message, { expected, received });
}

class BytesSource implements Source {
  readonly name = "bytes in memory";
  readonly size: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.size = checkSize(bytes.byteLength);
    this.#bytes = bytes;
  }

  stream(): ReadableStream<Uint8Array> {
    const bytes = this.#bytes;
    let at = 0;
    return new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          if (at >= bytes.byteLength) return controller.close();
          controller.enqueue(bytes.subarray(at, at + PIECE_BYTES));
          at += PIECE_BYTES;
        },
      },
      { highWaterMark: 0 },
    );
  }

  async slice(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    checkRange(start, end, this.size);
    return this.#bytes.subarray(start, end);
  }
}

class BlobSource implements Source {
  readonly name: string;
  readonly size: number;

  constructor(readonly blob: Blob) {
    this.size = checkSize(blob.size);
    this.name = "name" in blob && typeof blob.name === "string" ? blob.name : "a blob";
  }

  stream(): ReadableStream<Uint8Array> {
    return this.blob.stream();
  }

  async slice(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    checkRange(start, end, this.size);
    const buffer = await this.blob
      .slice(start, end)
      .arrayBuffer()
      .catch((cause: unknown) => {
        // Browsers refuse to read a file that has been written to since it was chosen.
        throw unreadable(this.name, cause);
      });
    return new Uint8Array(buffer);
  }
}
