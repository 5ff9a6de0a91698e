/** An upload by the official agent alone, with the library's own calls: in Node, and in a page. */

import { Actor, type HttpAgent } from "@icp-sdk/core/agent";
import { Principal } from "@icp-sdk/core/principal";
import { type _SERVICE as Bucket, idlFactory as bucketFactory } from "@openstorage/client/candid/bucket";
import { type _SERVICE as Index, idlFactory as indexFactory } from "@openstorage/client/candid/index";

const CHUNK_BYTES = 2_000_000;

export interface BareUpload {
  readonly agent: HttpAgent;
  readonly index: string;
  readonly accessorId: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Chunks on their way at the same time. */
  readonly concurrency: number;
}

/**
 * Milliseconds that an upload takes with the fewest calls: the index is asked for the bucket, and the chunks go there, so
 * many at a time. The hash is not counted: the agent does nothing for it. The bucket knows the user.
 */
export async function bareUploadMs({ agent, index, accessorId, bytes, concurrency }: BareUpload): Promise<number> {
  const blob_id = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const began = performance.now();
  const asked = Actor.createActor<Index>(indexFactory, { agent, canisterId: index });
  const found = await asked.allocated_bucket({ blob_id, size: BigInt(bytes.byteLength), exclude: [] });
  if ("Err" in found) throw new Error(Object.keys(found.Err)[0]);
  const actor = Actor.createActor<Bucket>(bucketFactory, { agent, canisterId: found.Ok.bucket });
  const count = Math.ceil(bytes.byteLength / CHUNK_BYTES);
  const push = async (index: number) => {
    const answer = await actor.push_chunk({
      blob_id,
      size: BigInt(bytes.byteLength),
      mime_type: "application/octet-stream",
      name: [],
      chunk_index: index,
      bytes: bytes.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES),
      accessor_ids: [Principal.fromText(accessorId)],
    });
    if ("Err" in answer) throw new Error(Object.keys(answer.Err)[0]);
  };
  let next = 0;
  const lane = async () => {
    while (next < count) await push(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
  return performance.now() - began;
}
