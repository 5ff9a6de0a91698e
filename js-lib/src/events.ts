/** The index's feed of changes to files, followed as it grows. */

import { type BlobId, blobIdFromBytes } from "./blob.js";
import type { Canister } from "./canister.js";
import type { Change, _SERVICE as Index } from "./candid/data_bucket_index.did.js";
import { OpenStorageError } from "./errors.js";
import { toPrincipal } from "./reference.js";
import { caseOf, refusal } from "./refusals.js";
import { sleep } from "./retry.js";
import type { PrincipalLike } from "./url.js";

/** Between two questions once all has been told, in milliseconds, unless the app says otherwise. */
const POLL_MS = 2_000;
const POLL_MS_MIN = 100;
/** Changes in one answer: what an index gives at most. */
const PAGE_CHANGES = 1_000;
/** Who asks at least so often has missed nothing: an index keeps the newest million. */
const NOTHING_MISSED_MS = 60_000;

/** A reference to a blob came or went. */
export interface FileChange {
  /**
   * - `added`: a bucket has got the blob, with its first reference.
   * - `referenced`, `unreferenced`: a further one came, or one of several went.
   * - `deleted`: the last one went, and the blob with it.
   */
  readonly what: "added" | "referenced" | "unreferenced" | "deleted";
  /** Rises from change to change. Kept, it is the `after` of the next time. */
  readonly id: bigint;
  /** When the index heard of it: milliseconds since 1970. */
  readonly atMs: number;
  readonly blobId: BlobId;
  /** Bytes. */
  readonly size: number;
  readonly bucket: string;
  /** Whose reference it is, and to whom it makes the blob visible. */
  readonly owner: string;
  readonly accessorId: string;
}

/** Changes up to `id` are not kept any more, and some of them may not have been told: look at everything anew. */
export interface ChangesMissed {
  readonly what: "missed";
  readonly id: bigint;
}

export type StorageEvent = FileChange | ChangesMissed;

export interface EventsOptions {
  /** The id of the last event that is known. Without it, from the oldest that is kept. */
  readonly after?: bigint;
  /** Whose changes. Without it the caller's own; for admins and issuers everybody's. */
  readonly owner?: PrincipalLike;
  /** `false` ends with the newest; else the events go on as they come. */
  readonly follow?: boolean;
  /** Between two questions once all has been told; at least 100 ms. */
  readonly pollMs?: number;
  readonly signal?: AbortSignal;
}

const KINDS = {
  Added: "added",
  Referenced: "referenced",
  Unreferenced: "unreferenced",
  Deleted: "deleted",
} as const;

/** @throws `InvalidOption`, `InvalidPrincipal` at once; `NotAuthorized`, `GaveUp`, the signal's reason later */
export function events(
  index: Canister<Index>,
  options: EventsOptions,
  patienceMs: number,
): AsyncGenerator<StorageEvent, void, undefined> {
  const { pollMs = POLL_MS } = options;
  if (!(pollMs >= POLL_MS_MIN)) {
    const message = `an index is asked every ${POLL_MS_MIN} ms at most`;
    throw new OpenStorageError("InvalidOption", message, { option: "pollMs" });
  }
  const owner = options.owner === undefined ? undefined : toPrincipal(options.owner, "owner");
  return follow(index, { ...options, pollMs }, owner, patienceMs);
}

async function* follow(
  index: Canister<Index>,
  { after: known, follow: goesOn = true, pollMs, signal }: EventsOptions & { readonly pollMs: number },
  owner: ReturnType<typeof toPrincipal> | undefined,
  patienceMs: number,
): AsyncGenerator<StorageEvent, void, undefined> {
  let after = known ?? 0n;
  // Who knows nothing yet has missed nothing.
  let allToldMs = known === undefined ? Date.now() : 0;
  for (;;) {
    const args = { after, owner: owner ? ([owner] as [typeof owner]) : ([] as []), limit: PAGE_CHANGES };
    const askedMs = Date.now();
    const answer = await index.call("events", [args], { signal, patienceMs });
    if ("Err" in answer) throw refusal(answer.Err, { canister: index.id, method: "events" });
    const { changes, forgotten_until: forgotten } = answer.Ok;
    if (forgotten > after && askedMs - allToldMs > NOTHING_MISSED_MS) {
      after = forgotten;
      yield { what: "missed", id: forgotten };
    }
    for (const change of changes) {
      if (change.id > after) after = change.id;
      yield changeOf(change);
    }
    if (changes.length >= PAGE_CHANGES) continue;
    if (!goesOn) return;
    allToldMs = askedMs;
    await sleep(pollMs, signal);
  }
}

function changeOf(change: Change): FileChange {
  return {
    what: KINDS[caseOf(change.what)],
    id: change.id,
    atMs: Number(change.at_ms),
    blobId: blobIdFromBytes(change.blob_id),
    size: Number(change.size),
    bucket: change.bucket.toText(),
    owner: change.owner.toText(),
    accessorId: change.accessor_id.toText(),
  };
}
