/** What all work of one `OpenStorage` shares. */

import type { Principal } from "@icp-sdk/core/principal";

import type { BlobCache } from "./cache.js";
import { Canister } from "./canister.js";
import { type _SERVICE as Bucket, idlFactory as bucketFactory } from "./candid/data_bucket.did.js";
import { type _SERVICE as Index, idlFactory as indexFactory } from "./candid/data_bucket_index.did.js";
import type { Pace } from "./pace.js";
import type { Platform } from "./platform/platform.js";
import { caseOf, payloadOf, refusal } from "./refusals.js";
import type { ResumeStore } from "./resume.js";
import { Patience } from "./retry.js";
import type { Semaphore } from "./semaphore.js";
import { CallError, type Transport } from "./transport.js";

/** Whether a canister turned a call away, as buckets do with large messages of callers whom they do not know. */
function isRefused(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof CallError && cause.kind === "refused";
}

export interface Parts {
  readonly transport: Transport;
  readonly platform: Platform;
  readonly resumeStore: ResumeStore;
  readonly patienceMs: number;
  /** Chunks on their way up, and down. */
  readonly pushPace: Pace;
  readonly pullPace: Pace;
  /** Uploads that do something; the others wait. */
  readonly uploads: Semaphore;
  /** A hash in one go holds the whole file. */
  readonly hashes: Semaphore;
  cache(principal: string): BlobCache | undefined;
}

export class Context {
  readonly index: Canister<Index>;
  /** Where the last upload went: the next one is likely to go there too. */
  lastBucket: string | undefined;
  readonly #buckets = new Map<string, Canister<Bucket>>();
  readonly #registering = new Map<string, Promise<void>>();

  constructor(
    readonly parts: Parts,
    indexId: string,
  ) {
    this.index = new Canister<Index>(parts.transport, indexId, indexFactory);
  }

  bucket(id: string): Canister<Bucket> {
    let bucket = this.#buckets.get(id);
    if (!bucket) {
      bucket = new Canister<Bucket>(this.parts.transport, id, bucketFactory);
      this.#buckets.set(id, bucket);
    }
    return bucket;
  }

  principal(): Promise<Principal> {
    return this.parts.transport.principal();
  }

  async cache(): Promise<BlobCache | undefined> {
    return this.parts.cache((await this.principal()).toText());
  }

  /**
   * Makes a bucket ask the index about the caller. One question is on its way for all who wait: the
   * chunks of a thousand files may find out at once.
   *
   * @throws `NotRegistered`, `NotAuthorized`; as {@link Canister.call}
   */
  async register(bucketId: string): Promise<void> {
    const known = this.#registering.get(bucketId);
    if (known) return known;
    const asking = this.#ensureRegistered(bucketId);
    this.#registering.set(bucketId, asking);
    const done = () => this.#registering.delete(bucketId);
    asking.then(done, done);
    return asking;
  }

  /**
   * A call to a bucket that may answer `Retry`, or, until it has asked the index about the caller, `NotRegistered` or
   * nothing at all: its answer after that has been seen to.
   */
  async asked<O, E extends object>(
    bucketId: string,
    ask: () => Promise<{ Ok: O } | { Err: E }>,
    signal?: AbortSignal,
  ): Promise<{ Ok: O } | { Err: E }> {
    const patience = new Patience(this.parts.patienceMs);
    let registered = false;
    for (;;) {
      const answer = await ask().catch((error: unknown) => {
        if (registered || !isRefused(error)) throw error;
        return undefined;
      });
      if (answer && "Ok" in answer) return answer;
      const retry = (answer?.Err as { Retry?: { ms: bigint } } | undefined)?.Retry;
      if (retry) {
        await patience.pause("the bucket asked to wait", signal, Number(retry.ms));
      } else if (!answer || ("NotRegistered" in answer.Err && !registered)) {
        registered = true;
        await this.register(bucketId);
      } else {
        return answer;
      }
    }
  }

  /** Not ended by one caller's signal, since others wait for it too; its patience ends it. */
  async #ensureRegistered(bucketId: string): Promise<void> {
    const { patienceMs } = this.parts;
    const bucket = this.bucket(bucketId);
    const patience = new Patience(patienceMs);
    for (;;) {
      const answer = await bucket.call("ensure_registered", [], { patienceMs });
      if ("Ok" in answer) return;
      const retry = payloadOf(answer.Err, "Retry");
      if (!retry) throw refusal(answer.Err, { canister: bucketId, method: "ensure_registered" });
      await patience.pause(caseOf(answer.Err), undefined, Number(retry.ms));
    }
  }
}
