/** What needs Node: files on disk as sources and as stores. */

import { randomUUID } from "node:crypto";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { basename } from "node:path";

import { checkRange, checkSize } from "./chunks.js";
import type { DownloadOptions } from "./download.js";
import type { Described } from "./encryption.js";
import { isOpenStorageError, OpenStorageError } from "./errors.js";
import { fileTypeOf } from "./file-types.js";
import type { BlobReference } from "./reference.js";
import { type Source, unreadable } from "./source.js";
import type { OpenStorageOn } from "./storage.js";

/** Bytes read at once while streaming. */
const READ_BYTES = 1_000_000;

/**
 * A source over the regular file at `path`. Uploaded, it has the file's name, and the type that its ending tells. Every
 * read opens the file anew, so that nothing has to
 * be closed, and makes sure that it still has the size and the modification time of this moment.
 *
 * @throws `SourceUnreadable`, with the system's error as `cause`; `BlobTooLarge`
 */
export async function fileSource(path: string): Promise<Source> {
  const stats = await stat(path).catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  if (!stats.isFile()) throw unreadable(path, new TypeError("not a regular file"));
  return new FileSource(path, checkSize(stats.size), stats.mtimeMs);
}

/**
 * Downloads a blob into a file, which is there when the bytes have been checked, and not before: until
 * then they are in a file beside it. Memory stays bounded. What it resolves with is known of the blob: its type, and of
 * an encrypted one its name.
 *
 * @throws as `OpenStorage.download`; the system's error where the file cannot be written
 */
export async function downloadToFile(
  storage: OpenStorageOn,
  reference: BlobReference,
  path: string,
  options: DownloadOptions,
): Promise<Described> {
  const partial = `${path}.${randomUUID()}.part`;
  const file = await open(partial, "wx");
  try {
    const to = new WritableStream<Uint8Array>({ write: (piece) => file.writeFile(piece) });
    const described = await storage.download(reference, { ...options, to });
    await file.close();
    await rename(partial, path);
    return described;
  } finally {
    await file.close().catch(() => {});
    await rm(partial, { force: true });
  }
}

class FileSource implements Source {
  readonly fileName: string;
  readonly mimeType: string;
  readonly #modifiedMs: number;

  constructor(
    readonly name: string,
    readonly size: number,
    modifiedMs: number,
  ) {
    this.fileName = basename(name);
    this.mimeType = fileTypeOf(name) ?? "";
    this.#modifiedMs = modifiedMs;
  }

  stream(): ReadableStream<Uint8Array> {
    let file: FileHandle | undefined;
    let at = 0;
    return new ReadableStream({
      // Into the reader's buffer: a file of gigabytes leaves nothing for the collector.
      type: "bytes",
      autoAllocateChunkSize: READ_BYTES,
      pull: async (controller) => {
        try {
          file ??= await this.#open();
          // With `autoAllocateChunkSize` there is a buffer for every pull.
          const { view } = controller.byobRequest as ReadableStreamBYOBRequest;
          const room = view as Uint8Array<ArrayBuffer>;
          const bytes = new Uint8Array(room.buffer, room.byteOffset, Math.min(room.byteLength, this.size - at));
          await this.#read(file, bytes, at);
          at += bytes.byteLength;
          const isLast = at === this.size;
          if (isLast) {
            await this.#checkUnchanged(file);
            await file.close();
          }
          if (bytes.byteLength > 0) controller.byobRequest?.respond(bytes.byteLength);
          if (!isLast) return;
          controller.close();
          // Closing leaves the next reader's buffer to be given back.
          controller.byobRequest?.respond(0);
        } catch (error) {
          await file?.close();
          throw error;
        }
      },
      cancel: () => file?.close(),
    });
  }

  async slice(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    checkRange(start, end, this.size);
    const bytes = new Uint8Array(end - start);
    await this.read(start, bytes);
    return bytes;
  }

  async read(start: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    checkRange(start, start + into.byteLength, this.size);
    const file = await this.#open();
    try {
      await this.#read(file, into, start);
      await this.#checkUnchanged(file);
    } finally {
      await file.close();
    }
  }

  async #open(): Promise<FileHandle> {
    const file = await open(this.name).catch((cause: unknown) => {
      throw unreadable(this.name, cause);
    });
    try {
      await this.#checkUnchanged(file);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Once before reading and once after: bytes from both sides of a change are of no blob. */
  async #checkUnchanged(file: FileHandle): Promise<void> {
    const { size, mtimeMs } = await file.stat();
    if (size !== this.size || mtimeMs !== this.#modifiedMs) throw this.#changed();
  }

  /** Fills `bytes` with those from `start` on. */
  async #read(file: FileHandle, bytes: Uint8Array, start: number): Promise<void> {
    try {
      for (let at = 0; at < bytes.byteLength; ) {
        const { bytesRead } = await file.read(bytes, at, bytes.byteLength - at, start + at);
        if (bytesRead === 0) throw this.#changed();
        at += bytesRead;
      }
    } catch (cause) {
      throw isOpenStorageError(cause) ? cause : unreadable(this.name, cause);
    }
  }

  #changed(): OpenStorageError<"SourceChanged"> {
    const message = `${this.name} was written to while it was in use: upload it again`;
    return new OpenStorageError("SourceChanged", message, { name: this.name });
  }
}

export { FolderCacheStore, FolderResumeStore } from "./folder.js";
