/** Who can open an encrypted blob: providers that wrap its key. */

import { OpenStorageError } from "./errors.js";

/** Wraps the fresh key of a file for somebody, and opens it again. */
export interface KeyProvider {
  /** Names the kind of wrapping in the blob, at most 32 bytes: it finds the right one again. */
  readonly id: string;
  /** @param key 32 bytes */
  wrap(key: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /** @throws anything when it was wrapped for somebody else */
  unwrap(wrapped: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
}

const IV_BYTES = 12;
const SALT_BYTES = 16;
const KEY_BYTES = 32;

/** What OWASP recommends for PBKDF2 with HMAC-SHA-256 (2023): about half a second on a phone. */
const PASSPHRASE_ITERATIONS = 600_000;
/** A blob that asks for more is hostile: it would freeze whoever opens it. */
const PASSPHRASE_ITERATIONS_MAX = 10_000_000;

/** @throws `NotSupported` where there is no WebCrypto */
export function checkWebCrypto(): void {
  if (globalThis.crypto?.subtle) return;
  const message = "encryption needs WebCrypto: browsers have it on pages served by https, or from localhost";
  throw new OpenStorageError("NotSupported", message, { feature: "WebCrypto" });
}

/** A key of 32 bytes that the app keeps. Whoever has it reads every blob that was encrypted for it. */
export function rawKey(key: Uint8Array): KeyProvider {
  if (key?.byteLength !== KEY_BYTES) {
    const message = `a raw key has ${KEY_BYTES} bytes`;
    throw new OpenStorageError("InvalidOption", message, { option: "key" });
  }
  checkWebCrypto();
  const wrapping = crypto.subtle.importKey("raw", new Uint8Array(key), "AES-GCM", false, ["encrypt", "decrypt"]);
  wrapping.catch(() => {});
  return {
    id: "raw",
    wrap: async (inner) => seal(await wrapping, inner),
    unwrap: async (wrapped) => unseal(await wrapping, wrapped),
  };
}

/**
 * A passphrase, stretched by PBKDF2 (HMAC-SHA-256, a fresh salt for each file).
 *
 * @param options.iterations for blobs that are encrypted now; those that exist carry their own
 */
export function passphrase(text: string, options: { iterations?: number } = {}): KeyProvider {
  const iterations = options.iterations ?? PASSPHRASE_ITERATIONS;
  if (typeof text !== "string" || !text || !(iterations >= 1 && iterations <= PASSPHRASE_ITERATIONS_MAX)) {
    const message = `a passphrase is not empty, and is stretched by 1 to ${PASSPHRASE_ITERATIONS_MAX} iterations`;
    throw new OpenStorageError("InvalidOption", message, { option: "passphrase" });
  }
  return {
    id: "passphrase",
    async wrap(inner) {
      const salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
      const sealed = await seal(await stretch(text, salt, iterations), inner);
      const wrapped = new Uint8Array(4 + SALT_BYTES + sealed.byteLength);
      new DataView(wrapped.buffer).setUint32(0, iterations);
      wrapped.set(salt, 4);
      wrapped.set(sealed, 4 + SALT_BYTES);
      return wrapped;
    },
    async unwrap(wrapped) {
      const asked = new DataView(wrapped.buffer, wrapped.byteOffset).getUint32(0);
      if (asked < 1 || asked > PASSPHRASE_ITERATIONS_MAX) throw new RangeError("iterations");
      const salt = wrapped.subarray(4, 4 + SALT_BYTES);
      return unseal(await stretch(text, salt, asked), wrapped.subarray(4 + SALT_BYTES));
    },
  };
}

async function stretch(
  text: string,
  salt: Uint8Array<ArrayBuffer>,
  iterations: number,
): Promise<CryptoKey> {
  // One passphrase may be typed on machines that compose accents differently.
  const bytes = new TextEncoder().encode(text.normalize("NFKC"));
  const base = await crypto.subtle.importKey("raw", bytes, "PBKDF2", false, ["deriveKey"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt, iterations };
  const aes = { name: "AES-GCM", length: 256 };
  return crypto.subtle.deriveKey(how, base, aes, false, ["encrypt", "decrypt"]);
}

async function seal(
  key: CryptoKey,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
  const sealed = new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, bytes));
  const all = new Uint8Array(IV_BYTES + sealed.byteLength);
  all.set(iv);
  all.set(sealed, IV_BYTES);
  return all;
}

async function unseal(
  key: CryptoKey,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const iv = bytes.subarray(0, IV_BYTES);
  const sealed = bytes.subarray(IV_BYTES);
  return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, sealed));
}
