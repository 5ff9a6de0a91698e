/** What storing a blob costs, before it is sent. */

import { chunkCount } from "./chunks.js";
import { CHUNK_BYTES, POSSESSION_CHUNKS_MAX } from "./limits.js";

/** Cycles on a subnet of 13 nodes, by the Internet Computer's price list. */
const INGRESS_MESSAGE = 1_200_000;
const INGRESS_BYTE = 2_000;
const UPDATE = 5_000_000;
/** Instructions, one cycle each: what `push_chunk` takes for a byte with one hash, and with the second of parts. */
const PUSH_BYTE = 81;
const PUSH_BYTE_OF_PARTS = 158;
const STORAGE_GIB_SECOND = 127_000;
const GIB = 2 ** 30;
const YEAR_SECONDS = 365.25 * 24 * 3600;

export interface Cost {
  /** Bytes that have to be sent. */
  readonly bytesToSend: number;
  /** Cycles that the canisters pay for receiving them. */
  readonly cyclesNow: number;
  /** Cycles that the bucket pays for keeping the blob a year: nothing more where it is stored already. */
  readonly cyclesPerYear: number;
}

/**
 * @param size bytes of the blob
 * @param stored whether a bucket has it already: then one chunk asks which ones the bucket wants to see, and
 * up to {@link POSSESSION_CHUNKS_MAX} of them prove that the sender has it too
 */
export function costOf(size: number, stored: boolean): Cost {
  const count = chunkCount(size);
  const chunks = stored ? Math.min(count, POSSESSION_CHUNKS_MAX) : count;
  const bytesToSend = Math.min(size, chunks * CHUNK_BYTES);
  const pushByte = stored || count === 1 ? PUSH_BYTE : PUSH_BYTE_OF_PARTS;
  const cyclesNow = chunks * (INGRESS_MESSAGE + UPDATE) + bytesToSend * (INGRESS_BYTE + pushByte);
  const cyclesPerYear = stored ? 0 : (size / GIB) * STORAGE_GIB_SECOND * YEAR_SECONDS;
  return { bytesToSend, cyclesNow: Math.round(cyclesNow), cyclesPerYear: Math.round(cyclesPerYear) };
}
