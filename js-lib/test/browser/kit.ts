/** What a test's page has: the library, on `window.kit`, for one user. */

import { HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { type BlobReference, isOpenStorageError, OpenStorage, passphrase, type Progress } from "@openstorage/client";
import { displayBlob, type GetToken, setStorage } from "@openstorage/client/elements";

import { bareUploadMs } from "../bench/bare.js";
import { type Given, type Outcome, perform, type Step } from "../conformance/perform.js";
import { random } from "../random.js";

interface Opened {
  readonly agent: HttpAgent;
  readonly index: string;
  readonly storage: OpenStorage;
}

let current: Opened | undefined;

function opened(): Opened {
  if (!current) throw new Error("the kit has not been opened");
  return current;
}

const told = (work: Promise<unknown>) => work.then(() => "done", (error) => (isOpenStorageError(error) ? error.code : String(error)));

const kit = {
  /** Makes the page that of a user; the identity is JSON. */
  async open(index: string, identity: string): Promise<void> {
    const user = Ed25519KeyIdentity.fromJSON(identity);
    const agent = await HttpAgent.create({ host: location.origin, identity: user, shouldFetchRootKey: true });
    current = { agent, index, storage: new OpenStorage({ agent, indexCanisterId: index }) };
  },

  /** Lets the elements of the page show what the user may see. */
  show(getToken: GetToken): void {
    setStorage(opened().storage, getToken);
  },

  /** Hashes the file that was chosen in an input, out of the page's way. */
  async hash(input: string): Promise<string> {
    const file = document.querySelector<HTMLInputElement>(input)?.files?.[0];
    if (!file) throw new Error("no file was chosen");
    return (await opened().storage.estimate(file)).blobId;
  },

  /** Stores some bytes with all that the page has, reads their hash in the way of large ones, forgets what is kept. */
  async tour(accessorId: string, encrypted: boolean): Promise<Record<"stored" | "hashed" | "forgotten", string>> {
    const { storage } = opened();
    const small = crypto.getRandomValues(new Uint8Array(10_000));
    const options = { accessorIds: [accessorId], ...(encrypted && { encryptFor: passphrase("words", { iterations: 1 }) }) };
    return {
      stored: await told(storage.upload(small, options).done),
      hashed: await told(storage.estimate(new Blob([new Uint8Array(33_000_000)]))),
      forgotten: await told(storage.clearCache()),
    };
  },

  /** The newest progress of {@link Kit.watch}. */
  progress: undefined as Progress | undefined,

  /** Uploads so many random bytes; what was told meanwhile. */
  async watch(size: number, accessorId: string): Promise<{ outcome: string; seen: Progress[] }> {
    const seen: Progress[] = [];
    const onProgress = (progress: Progress) => {
      kit.progress = progress;
      seen.push(progress);
    };
    const outcome = await told(opened().storage.upload(random(size), { accessorIds: [accessorId], onProgress }).done);
    return { outcome, seen };
  },

  /** Milliseconds of an upload of so many random bytes: by the library, or by the agent alone, so many chunks at a time. */
  async uploadMs(size: number, accessorId: string, concurrency?: number): Promise<number> {
    const { agent, index, storage } = opened();
    const bytes = random(size);
    if (concurrency !== undefined) return bareUploadMs({ agent, index, accessorId, bytes, concurrency });
    const began = performance.now();
    await storage.upload(bytes, { accessorIds: [accessorId] }).done;
    return performance.now() - began;
  },

  /** Loads a blob anew, as elements do; `done`, or why not. */
  load(reference: BlobReference, accessorId: string, token: string): Promise<string> {
    return told(displayBlob(opened().storage, reference, { accessorId, token }));
  },

  /** A step of the conformance cases, as the user of the page. */
  perform(step: Step, given: Given): Promise<Outcome> {
    const { agent, index } = opened();
    return perform(agent, index, step, given);
  },
};
export type Kit = typeof kit;

declare global {
  interface Window {
    kit: Kit;
  }
}

window.kit = kit;
