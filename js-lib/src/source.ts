/**
 * Where a blob's bytes come from. The rest of the library knows these two interfaces only; a file
 * on disk is in `node.ts`.
 */

import { checkRange, checkSize } from "./chunks.js";
import { isOpenStorageError, OpenStorageError } from "./errors.js";

/** Bytes that can be read from the first to the last. */
export interface StreamSource {
  /** For messages: a file's name or path where there is one. */
  readonly name: string;
  /** The name that a blob of these bytes has, unless the upload says another. */
  readonly fileName?: string;
  /** The MIME type of these bytes, unless the upload says another. */
  readonly mimeType?: string;
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
  /** The same into the caller's memory, as many bytes as have room there; for sources that read from elsewhere. */
  read?(start: number, into: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** Fills `into` with the bytes of a source from `start` on. @throws as {@link Source.slice} */
export async function readInto(source: Source, start: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
  if (source.read) return source.read(start, into);
  into.set(await source.slice(start, start + into.byteLength));
}

/**
 * Readers of streams that are being read. Nothing else refers to one while it waits for its next piece, where nobody holds
 * what is done with the pieces: Chromium collects such a stream with all that waits for it, and the read never ends.
 */
const reading = new Set<Reader>();

/** Pieces in which bytes are streamed: 1 MB, a few milliseconds of hashing. */
const PIECE_BYTES = 1_000_000;

/**
 * A source over a `File`, a `Blob`, or bytes in memory. Nothing is copied but shared memory; bytes in memory must not
 * change while the source is in use.
 *
 * @throws `InvalidOption` for anything else; `BlobTooLarge`
 */
export function sourceOf(data: Blob | ArrayBufferLike | ArrayBufferView): Source {
  const bytes = bytesOf(data);
  if (bytes) return new BytesSource(bytes);
  if (isBlob(data)) return new BlobSource(data);
  throw new OpenStorageError("InvalidOption", "a source is made of a File, a Blob or bytes", { option: "data" });
}

/** By their class's name: bytes may come from another frame, where each class is another. */
const classOf = (value: unknown) => Object.prototype.toString.call(value).slice("[object ".length, -1);

/** Of another frame or package, too. */
export function isStream(data: unknown): data is ReadableStream<Uint8Array> {
  return typeof (data as ReadableStream | null)?.getReader === "function";
}

export function isBlob(data: unknown): data is Blob {
  return ["Blob", "File"].includes(classOf(data));
}

/** The bytes of a buffer, or of a view of one; `undefined` where the data is neither. */
export function bytesOf(data: unknown): Uint8Array<ArrayBuffer> | undefined {
  const isView = ArrayBuffer.isView(data);
  if (!isView && !["ArrayBuffer", "SharedArrayBuffer"].includes(classOf(data))) return undefined;
  const bytes = isView
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data as ArrayBufferLike);
  // What platforms hash and send is not shared.
  return classOf(bytes.buffer) === "SharedArrayBuffer" ? new Uint8Array(bytes) : (bytes as Uint8Array<ArrayBuffer>);
}

/**
 * A source over a stream whose size is known, for instance from `Content-Length`. It can be read
 * once.
 *
 * @param size bytes that the stream will give
 * @throws `InvalidOption` for what is no stream; `InvalidSize`, `BlobTooLarge`
 */
export function sourceOfStream(stream: ReadableStream<Uint8Array>, size: number): StreamSource {
  if (!isStream(stream)) throw new OpenStorageError("InvalidOption", "this is no ReadableStream", { option: "stream" });
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
 * All bytes of a source, piece by piece, exactly `source.size` of them. A piece is there until the next one is
 * asked for: streams of bytes put all of theirs into one buffer, so that no collector has to run after them.
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
  const reader = readerOf(source.stream());
  // Cancelling ends a pending read at once. What the stream says to being cancelled is of no use
  // to anyone any more.
  const cancel = () => void reader.cancel(signal?.reason).catch(() => {});
  signal?.addEventListener("abort", cancel, { once: true });
  reading.add(reader);
  try {
    let received = 0;
    for (;;) {
      const piece = await nextPiece(reader, source.name);
      signal?.throwIfAborted();
      if (!piece) break;
      received += piece.byteLength;
      if (received > source.size) throw sizeMismatch(source, received);
      yield piece;
      signal?.throwIfAborted();
    }
    if (received < source.size) throw sizeMismatch(source, received);
  } finally {
    reading.delete(reader);
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
}

/** An error of the source as this library words it. */
export function unreadable(name: string, cause: unknown): OpenStorageError<"SourceUnreadable"> {
  const message = `${name} cannot be read: it was changed, moved or deleted, or is no file. Choose it again`;
  return new OpenStorageError("SourceUnreadable", message, { name }, { cause });
}

/** Reads piece after piece, `undefined` at the end. */
interface Reader {
  read(): Promise<unknown>;
  cancel(reason: unknown): Promise<void>;
}

function readerOf(stream: ReadableStream<Uint8Array>): Reader {
  const reader = lendingReader(stream);
  if (!reader) {
    const plain = stream.getReader();
    return { read: async () => (await plain.read()).value, cancel: (reason) => plain.cancel(reason) };
  }
  // Lent to the stream, and back with what it has read.
  let buffer = new ArrayBuffer(PIECE_BYTES);
  return {
    async read() {
      const { done, value } = await reader.read(new Uint8Array(buffer));
      if (done || !value) return undefined;
      buffer = value.buffer as ArrayBuffer;
      return value;
    },
    cancel: (reason) => reader.cancel(reason),
  };
}

/** Streams of bytes read into a buffer of the reader's; others have none of it. */
function lendingReader(stream: ReadableStream<Uint8Array>): ReadableStreamBYOBReader | undefined {
  try {
    return stream.getReader({ mode: "byob" });
  } catch {
    return undefined;
  }
}

/** The next piece; `undefined` at the end. */
async function nextPiece(reader: Reader, name: string): Promise<Uint8Array | undefined> {
  const value = await reader.read().catch((cause: unknown) => {
    throw isOpenStorageError(cause) ? cause : unreadable(name, cause);
  });
  if (value === undefined) return undefined;
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
  readonly fileName?: string;
  readonly mimeType: string;

  constructor(readonly blob: Blob) {
    this.size = checkSize(blob.size);
    this.mimeType = blob.type;
    if ("name" in blob && typeof blob.name === "string") this.fileName = blob.name;
    this.name = this.fileName || "a blob";
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
