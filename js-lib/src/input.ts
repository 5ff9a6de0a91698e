/** What an app hands over to be stored, and what it says about it. */

import type { Principal } from "@icp-sdk/core/principal";

import { checkSize } from "./chunks.js";
import { checkOptions, OpenStorageError } from "./errors.js";
import { ACCESSORS_MAX, MIME_TYPE_BYTES_MAX, MIME_TYPE_GIVEN_BYTES_MAX, NAME_BYTES_MAX, PLAIN_TYPE } from "./limits.js";
import { toPrincipal } from "./reference.js";
import { invalidAccessors, invalidMimeType, invalidName } from "./refusals.js";
import { bytesOf, isBlob, isStream, sourceOf, sourceOfStream, type StreamSource } from "./source.js";
import type { UploadData, UploadOptions } from "./upload.js";
import type { PrincipalLike } from "./url.js";

/** Bytes to store, and how they are to be seen. */
export interface Input {
  readonly source: StreamSource;
  /** In lower case. */
  readonly mimeType: string;
  readonly name: string | undefined;
  readonly accessorIds: readonly Principal[];
}

/** @throws `InvalidOption`, `InvalidSize`, `BlobTooLarge`, `InvalidMimeType`, `InvalidName`, `InvalidAccessors`, `InvalidPrincipal` */
export function inputOf(data: UploadData, options: UploadOptions): Input {
  checkOptions(options);
  const source = anySource(data, options.size);
  checkSize(source.size);
  return {
    source,
    // Nobody chose what a file says of itself: what is none is left out.
    mimeType: options.mimeType === undefined ? (storedType(source.mimeType ?? "") ?? PLAIN_TYPE) : checkMimeType(options.mimeType),
    name: checkName(options.name ?? source.fileName),
    accessorIds: accessorsOf(options.accessorIds),
  };
}

/**
 * The source that the data is, or makes.
 *
 * @param size bytes of a stream
 * @throws `InvalidOption`, `InvalidSize`, `BlobTooLarge`
 */
export function anySource(data: UploadData, size?: number): StreamSource {
  if (typeof data === "string") return textSource(data);
  const bytes = bytesOf(data);
  if (bytes) return sourceOf(bytes);
  if (isBlob(data)) return sourceOf(data);
  if (isStream(data)) return sourceOfStream(data, streamSize(size));
  if (typeof data === "object" && typeof (data as StreamSource | null)?.stream === "function") return data as StreamSource;
  const iterator = (data as AsyncIterable<Uint8Array> | null)?.[Symbol.asyncIterator];
  if (typeof iterator === "function") return sourceOfStream(streamOf(data as AsyncIterable<Uint8Array>), streamSize(size));
  const message = "what is uploaded is a File, a Blob, bytes, a text, a stream or a source";
  throw new OpenStorageError("InvalidOption", message, { option: "data" });
}

function textSource(text: string): StreamSource {
  return Object.assign(sourceOf(new TextEncoder().encode(text)), { mimeType: "text/plain" });
}

function streamSize(size: number | undefined): number {
  if (size !== undefined) return size;
  const message = "a stream is uploaded with its size: pass the option size, in bytes";
  throw new OpenStorageError("InvalidOption", message, { option: "size" });
}

/** Of what can be iterated, such as a `Readable` of Node. */
function streamOf(pieces: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = pieces[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await iterator.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

const MIME_TYPE = /^[a-z0-9!#$&^_.+-]+\/[a-z0-9!#$&^_.+-]+$/;

/** As buckets store it: in lower case, without parameters such as a charset. `undefined` where there is no such type. */
function storedType(text: string): string | undefined {
  const mimeType = text.split(";", 1)[0]?.trim().toLowerCase() ?? "";
  const fits = text.length <= MIME_TYPE_GIVEN_BYTES_MAX && mimeType.length <= MIME_TYPE_BYTES_MAX;
  return fits && MIME_TYPE.test(mimeType) ? mimeType : undefined;
}

/** @throws `InvalidMimeType` */
export function checkMimeType(text: string): string {
  const mimeType = storedType(String(text));
  if (mimeType === undefined) throw invalidMimeType(MIME_TYPE_BYTES_MAX);
  return mimeType;
}

/** An empty name is none. @throws `InvalidName` */
export function checkName(name: string | undefined): string | undefined {
  const text = String(name ?? "");
  if (new TextEncoder().encode(text).byteLength > NAME_BYTES_MAX) throw invalidName(NAME_BYTES_MAX);
  return text || undefined;
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
