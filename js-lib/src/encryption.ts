/**
 * Encrypted blobs: AES-GCM in parts that can be read one by one.
 *
 * | bytes | what |
 * | --- | --- |
 * | 4 | `OSE1` |
 * | 4 | bytes of the header, all of this table |
 * | 4 | plain bytes of a part |
 * | 8 | plain bytes of the whole |
 * | 1 | number of wrapped keys, then each: 1 + n the provider's id, 2 + n the wrapped key |
 * | 2 + n | MIME type and name as JSON, sealed |
 *
 * After the header come the parts, each with its tag of 16 bytes; an empty blob has one empty part.
 * Numbers are big-endian. The key is fresh for each blob, so a part's nonce is its number; the nonce
 * of the sealed JSON is all ones. Everything is authenticated together with the header's hash: parts
 * cannot be exchanged, cut off, or moved to another blob.
 */

import { OpenStorageError } from "./errors.js";
import { checkWebCrypto, type KeyProvider } from "./keys.js";
import type { Source } from "./source.js";

const MAGIC = "OSE1";
const FIXED_BYTES = 21;
const HEADER_BYTES_MAX = 65_536;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
/** A sealed part has 256 KiB: small enough for a seek, large enough that its tag costs nothing. */
const PART_BYTES = 262_144 - TAG_BYTES;
const PART_BYTES_MAX = 16_777_216;
const WRAPS_MAX = 255;

/** What is known of a blob besides its bytes. An encrypted one keeps it for those who can open it. */
export interface Described {
  readonly mimeType: string;
  readonly name?: string;
}

/** Some bytes of the encrypted blob. */
export type ReadSealed = (start: number, end: number) => Promise<Uint8Array<ArrayBuffer>>;

/** A source's bytes, encrypted as they are read: the same every time it is read, since the key stays. */
export async function encryptedSource(
  plain: Source,
  described: Described,
  providers: readonly KeyProvider[],
): Promise<Source> {
  if (providers.length < 1 || providers.length > WRAPS_MAX) {
    const message = `a blob is encrypted for 1 to ${WRAPS_MAX} key providers`;
    throw new OpenStorageError("InvalidOption", message, { option: "encryptFor" });
  }
  checkWebCrypto();
  const secret = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const wraps = await Promise.all(
    providers.map(async (provider) => ({ id: provider.id, key: await provider.wrap(secret) })),
  );
  const key = await importKey(secret);
  secret.fill(0);
  const header = await encodeHeader(key, plain.size, described, wraps);
  return new EncryptedSource(plain, new Parts(key, header, PART_BYTES, plain.size));
}

/** An encrypted blob that a provider can open. */
export class DecryptedBlob {
  private constructor(
    readonly described: Described,
    /** Plain bytes. */
    readonly size: number,
    private readonly parts: Parts,
    private readonly readSealed: ReadSealed,
  ) {}

  /**
   * @param sealedSize bytes of the encrypted blob
   * @throws `NotEncrypted`, `WrongKey`, `NotSupported`; what `readSealed` throws
   */
  static async open(
    sealedSize: number,
    readSealed: ReadSealed,
    provider: KeyProvider,
  ): Promise<DecryptedBlob> {
    checkWebCrypto();
    const head = await readSealed(0, Math.min(sealedSize, HEADER_BYTES_MAX));
    const header = decodeHeader(head);
    const key = await unwrapAny(header.wraps, provider);
    const described = await openDescription(key, header);
    const parts = new Parts(key, await sealedWith(header.bytes), header.partBytes, header.size);
    if (parts.sealedEnd !== sealedSize) throw notEncrypted("its size is not what its header says");
    return new DecryptedBlob(described, header.size, parts, readSealed);
  }

  /** The plain bytes `start .. end`, authenticated; only the parts around them are read. */
  async read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const { parts } = this;
    const out = new Uint8Array(end - start);
    if (end <= start) return out;
    const first = Math.floor(start / parts.partBytes);
    const last = Math.floor((end - 1) / parts.partBytes);
    const sealed = await this.readSealed(parts.sealedAt(first), parts.sealedAt(last + 1));
    for (let index = first; index <= last; index++) {
      const from = parts.sealedAt(index) - parts.sealedAt(first);
      const until = parts.sealedAt(index + 1) - parts.sealedAt(first);
      const plain = await parts.open(index, sealed.subarray(from, until));
      const at = index * parts.partBytes;
      const piece = plain.subarray(Math.max(0, start - at), Math.min(plain.byteLength, end - at));
      out.set(piece, Math.max(0, at - start));
    }
    return out;
  }

  /** All plain bytes, in order, while the sealed ones come in order. */
  async *decrypt(sealed: AsyncIterable<Uint8Array<ArrayBuffer>>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const { parts } = this;
    let index = 0;
    let skip = parts.sealedAt(0);
    let kept: Uint8Array<ArrayBuffer> = new Uint8Array(0);
    for await (const piece of sealed) {
      const skipped = Math.min(skip, piece.byteLength);
      skip -= skipped;
      kept = joined(kept, piece.subarray(skipped));
      let at = 0;
      for (; index < parts.count; index++) {
        const length = parts.sealedAt(index + 1) - parts.sealedAt(index);
        if (kept.byteLength - at < length) break;
        yield await parts.open(index, kept.subarray(at, at + length));
        at += length;
      }
      kept = kept.slice(at);
    }
    if (index < parts.count) throw notEncrypted("it ends too early");
  }
}

/** Sealing and opening of parts, and where they lie. */
class Parts {
  readonly count: number;

  constructor(
    private readonly key: CryptoKey,
    private readonly header: { readonly bytes: Uint8Array<ArrayBuffer>; readonly hash: Uint8Array<ArrayBuffer> },
    /** Plain bytes of each but the last. */
    readonly partBytes: number,
    /** Plain bytes of all. */
    readonly size: number,
  ) {
    this.count = Math.max(1, Math.ceil(size / partBytes));
  }

  get headerBytes(): Uint8Array<ArrayBuffer> {
    return this.header.bytes;
  }

  /** Where a part begins in the encrypted blob; of the part after the last, where it ends. */
  sealedAt(index: number): number {
    const plain = Math.min(index * this.partBytes, this.size);
    return this.header.bytes.byteLength + plain + Math.min(index, this.count) * TAG_BYTES;
  }

  get sealedEnd(): number {
    return this.sealedAt(this.count);
  }

  async seal(index: number, plain: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await crypto.subtle.encrypt(this.#cipher(index), this.key, plain));
  }

  async open(index: number, sealed: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    try {
      return new Uint8Array(await crypto.subtle.decrypt(this.#cipher(index), this.key, sealed));
    } catch {
      throw notEncrypted(`part ${index} is damaged`);
    }
  }

  #cipher(index: number): AesGcmParams {
    const iv = new Uint8Array(12);
    new DataView(iv.buffer).setBigUint64(4, BigInt(index));
    return { name: "AES-GCM", iv, additionalData: this.header.hash };
  }
}

class EncryptedSource implements Source {
  readonly name: string;
  readonly size: number;

  constructor(
    private readonly plain: Source,
    private readonly parts: Parts,
  ) {
    this.name = plain.name;
    this.size = parts.sealedEnd;
  }

  stream(): ReadableStream<Uint8Array> {
    let index = -1;
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          controller.enqueue(index < 0 ? this.parts.headerBytes : await this.#sealed(index));
          if (++index === this.parts.count) controller.close();
        },
      },
      { highWaterMark: 0 },
    );
  }

  async slice(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const { parts } = this;
    const out = new Uint8Array(end - start);
    const put = (bytes: Uint8Array<ArrayBuffer>, at: number) => {
      const piece = bytes.subarray(Math.max(0, start - at), Math.max(0, end - at));
      if (piece.byteLength > 0) out.set(piece, Math.max(0, at - start));
    };
    put(parts.headerBytes, 0);
    const sealedBytes = parts.partBytes + TAG_BYTES;
    const first = Math.max(0, Math.floor((start - parts.sealedAt(0)) / sealedBytes));
    for (let index = first; index < parts.count && parts.sealedAt(index) < end; index++) {
      put(await this.#sealed(index), parts.sealedAt(index));
    }
    return out;
  }

  async #sealed(index: number): Promise<Uint8Array<ArrayBuffer>> {
    const { partBytes } = this.parts;
    const start = index * partBytes;
    const plain = await this.plain.slice(start, Math.min(start + partBytes, this.plain.size));
    return this.parts.seal(index, plain);
  }
}

interface Wrap {
  readonly id: string;
  readonly key: Uint8Array<ArrayBuffer>;
}

interface Header {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The header up to the sealed description. */
  readonly open: Uint8Array<ArrayBuffer>;
  readonly partBytes: number;
  readonly size: number;
  readonly wraps: readonly Wrap[];
  readonly sealedDescription: Uint8Array<ArrayBuffer>;
}

async function encodeHeader(
  key: CryptoKey,
  size: number,
  described: Described,
  wraps: readonly Wrap[],
) {
  const text = new TextEncoder();
  const ids = wraps.map(({ id }) => text.encode(id));
  const description = text.encode(JSON.stringify(described));
  const wrapsBytes = wraps.reduce((sum, wrap, i) => sum + 3 + ids[i]!.byteLength + wrap.key.byteLength, 0);
  const openBytes = FIXED_BYTES + wrapsBytes;
  const bytes = new Uint8Array(openBytes + 2 + description.byteLength + TAG_BYTES);
  if (bytes.byteLength > HEADER_BYTES_MAX) {
    const message = `the wrapped keys take more than ${HEADER_BYTES_MAX} bytes: encrypt for fewer providers`;
    throw new OpenStorageError("InvalidOption", message, { option: "encryptFor" });
  }
  const view = new DataView(bytes.buffer);
  bytes.set(text.encode(MAGIC));
  view.setUint32(4, bytes.byteLength);
  view.setUint32(8, PART_BYTES);
  view.setBigUint64(12, BigInt(size));
  view.setUint8(20, wraps.length);
  let at = FIXED_BYTES;
  wraps.forEach((wrap, i) => {
    const id = ids[i]!;
    view.setUint8(at, id.byteLength);
    bytes.set(id, at + 1);
    view.setUint16(at + 1 + id.byteLength, wrap.key.byteLength);
    bytes.set(wrap.key, at + 3 + id.byteLength);
    at += 3 + id.byteLength + wrap.key.byteLength;
  });
  view.setUint16(at, description.byteLength + TAG_BYTES);
  const cipher = await descriptionCipher(bytes.subarray(0, openBytes));
  bytes.set(new Uint8Array(await crypto.subtle.encrypt(cipher, key, description)), at + 2);
  return sealedWith(bytes);
}

function decodeHeader(head: Uint8Array<ArrayBuffer>): Header {
  try {
    const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
    const text = new TextDecoder("utf-8", { fatal: true });
    if (text.decode(head.subarray(0, 4)) !== MAGIC) throw new TypeError("no magic");
    const headerBytes = view.getUint32(4);
    const partBytes = view.getUint32(8);
    const size = Number(view.getBigUint64(12));
    const fits = headerBytes <= head.byteLength && partBytes >= 1 && partBytes <= PART_BYTES_MAX;
    if (!fits || !Number.isSafeInteger(size)) throw new RangeError("header");
    const wraps: Wrap[] = [];
    let at = FIXED_BYTES;
    for (let left = view.getUint8(20); left > 0; left--) {
      const idBytes = view.getUint8(at);
      const id = text.decode(head.subarray(at + 1, at + 1 + idBytes));
      const keyBytes = view.getUint16(at + 1 + idBytes);
      at += 3 + idBytes;
      wraps.push({ id, key: head.slice(at, at + keyBytes) });
      at += keyBytes;
    }
    const open = head.slice(0, at);
    const end = at + 2 + view.getUint16(at);
    if (end !== headerBytes) throw new RangeError("header's end");
    const sealedDescription = head.slice(at + 2, end);
    return { bytes: head.slice(0, end), open, partBytes, size, wraps, sealedDescription };
  } catch {
    throw notEncrypted("it has no header of this library");
  }
}

async function unwrapAny(wraps: readonly Wrap[], provider: KeyProvider): Promise<CryptoKey> {
  for (const wrap of wraps) {
    if (wrap.id !== provider.id) continue;
    const secret = await provider.unwrap(wrap.key).catch(() => undefined);
    if (secret?.byteLength === KEY_BYTES) return importKey(secret);
  }
  const message = `none of the blob's keys opens with this ${provider.id}: use the one it was encrypted for`;
  throw new OpenStorageError("WrongKey", message, { provider: provider.id });
}

async function openDescription(key: CryptoKey, header: Header): Promise<Described> {
  try {
    const cipher = await descriptionCipher(header.open);
    const bytes = await crypto.subtle.decrypt(cipher, key, header.sealedDescription);
    const { mimeType, name }: Partial<Described> = JSON.parse(new TextDecoder().decode(bytes));
    return { mimeType: String(mimeType), ...(name !== undefined && { name: String(name) }) };
  } catch {
    throw notEncrypted("its header is damaged");
  }
}

async function descriptionCipher(open: Uint8Array<ArrayBuffer>): Promise<AesGcmParams> {
  const iv = new Uint8Array(12).fill(0xff);
  return { name: "AES-GCM", iv, additionalData: await sha256(open) };
}

async function sealedWith(bytes: Uint8Array<ArrayBuffer>) {
  return { bytes, hash: await sha256(bytes) };
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

function importKey(secret: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", secret, "AES-GCM", false, ["encrypt", "decrypt"]);
}

function joined(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (a.byteLength === 0) return b;
  const all = new Uint8Array(a.byteLength + b.byteLength);
  all.set(a);
  all.set(b, a.byteLength);
  return all;
}

function notEncrypted(reason: string): OpenStorageError<"NotEncrypted"> {
  const message = `the blob cannot be decrypted: ${reason}`;
  return new OpenStorageError("NotEncrypted", message, { reason });
}
