/** What a step of `tests/conformance/cases.json` makes of the library: in Node and, bundled, in a page. */

import type { HttpAgent } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import {
  agentTransport,
  type BlobReference,
  CHUNK_BYTES,
  isOpenStorageError,
  MemoryResumeStore,
  OpenStorage,
  type Source,
  type Transport,
} from "@openstorage/client";
import { idlFactory as bucketFactory } from "@openstorage/client/candid/bucket";

export interface BlobSpec {
  readonly size: number;
  readonly seed: number;
}

/** As the table says it. */
export interface Step {
  readonly do: "upload" | "download" | "read" | "delete";
  readonly as: string;
  readonly blob?: BlobSpec;
  readonly name?: string;
  readonly mime_type?: string;
  readonly accessors?: readonly string[];
  readonly changes?: boolean;
  readonly stop_after?: number;
  readonly discard?: boolean;
  readonly times?: number;
  readonly of?: string;
  readonly token?: string;
  readonly token_of?: string;
  readonly damage?: boolean;
  readonly start?: number;
  readonly end?: number;
  readonly expect: Record<string, unknown>;
}

/** What the step is done with. */
export interface Given {
  readonly accessorIds: readonly string[];
  /** The blob that it is about, as its owner shared it. */
  readonly shared?: { readonly reference: BlobReference; readonly accessorId: string };
  readonly token?: string;
}

/** How a step ended, in the table's words. */
export interface Outcome {
  ok?: Record<string, unknown>;
  error?: { code: string; fields: Record<string, unknown> };
  stopped?: boolean;
  /** Calls of `push_chunk` that were made. */
  pushes: number;
  /** Of an upload. */
  reference?: BlobReference;
}

/** What the device of each user remembers from step to step. */
const remembered = new WeakMap<HttpAgent, MemoryResumeStore>();

/** Does a step as the agent's user. */
export async function perform(agent: HttpAgent, index: string, step: Step, given: Given): Promise<Outcome> {
  const line = new Line(agentTransport(agent), step.damage ?? false);
  const resumeStore = remembered.get(agent) ?? new MemoryResumeStore();
  remembered.set(agent, resumeStore);
  const storage = new OpenStorage({
    transport: line,
    indexCanisterId: index,
    resumeStore,
    cache: false,
  });
  const outcome: Outcome = { pushes: 0 };
  try {
    Object.assign(outcome, await STEPS[step.do](storage, step, given, line));
  } catch (error) {
    if (isOpenStorageError(error)) outcome.error = { code: error.code, fields: snakeCase(error.fields) };
    else if (error instanceof DOMException && error.name === "AbortError") outcome.stopped = true;
    else throw error;
  }
  outcome.pushes = line.pushes;
  return outcome;
}

const STEPS = { upload, download, read, delete: remove };

async function upload(storage: OpenStorage, step: Step, { accessorIds }: Given, line: Line): Promise<Partial<Outcome>> {
  const options = {
    accessorIds,
    ...(step.name !== undefined && { name: step.name }),
    mimeType: step.mime_type ?? "application/octet-stream",
  };
  const start = () => {
    const controller = new AbortController();
    const started = storage.upload(new Made(step), { ...options, signal: controller.signal });
    // At the very end the last chunk is in, and there is nothing to stop.
    line.onTaken = (count) => {
      if (count !== step.stop_after) return;
      if (step.discard) void started.abort();
      else controller.abort();
    };
    return started;
  };
  const started = Array.from({ length: step.times ?? 1 }, start);
  try {
    const references = await Promise.all(started.map(({ done }) => done));
    const [reference] = references as [BlobReference];
    if (references.some(({ bucket }) => bucket !== reference.bucket)) throw new Error("one blob lies in two buckets");
    return { ok: { blob_id: reference.blobId, size: reference.size, mime_type: reference.mimeType }, reference };
  } finally {
    // What is to be given back has been, before the next step.
    if (step.discard) await Promise.all(started.map((one) => one.abort()));
  }
}

async function download(storage: OpenStorage, _: Step, given: Given): Promise<Partial<Outcome>> {
  const { reference, ...options } = shared(given);
  const blob = await storage.download(reference, options);
  return { ok: { blob_id: await sha256(new Uint8Array(await blob.arrayBuffer())), size: blob.size } };
}

async function read(storage: OpenStorage, { start = 0, end = 0 }: Step, given: Given): Promise<Partial<Outcome>> {
  const { reference, ...options } = shared(given);
  const bytes = await storage.readRange(reference, { start, end }, options);
  return { ok: { sha256: await sha256(bytes), size: bytes.byteLength } };
}

async function remove(storage: OpenStorage, _: Step, given: Given): Promise<Partial<Outcome>> {
  const { reference, accessorId } = shared(given);
  await storage.delete(reference, { accessorId });
  return { ok: {} };
}

function shared({ shared, token }: Given) {
  if (!shared) throw new Error("the step is about a blob, and there is none");
  return { ...shared, token: token ?? "" };
}

/** Counts what goes over the line, and may damage what comes back. */
class Line implements Transport {
  pushes = 0;
  onTaken: (count: number) => void = () => {};
  #taken = 0;

  constructor(
    private readonly inner: Transport,
    private readonly damages: boolean,
  ) {}

  principal() {
    return this.inner.principal();
  }

  async query(canister: string, method: string, arg: Uint8Array, signal?: AbortSignal) {
    const answer = await this.inner.query(canister, method, arg, signal);
    if (!this.damages || method !== "read_chunk") return answer;
    // Nearly all of the answer are the blob's bytes.
    const damaged = answer.slice();
    damaged[damaged.byteLength >> 1]! ^= 1;
    return damaged;
  }

  async update(canister: string, method: string, arg: Uint8Array, signal?: AbortSignal) {
    const isPush = method === "push_chunk";
    if (isPush) this.pushes++;
    const answer = await this.inner.update(canister, method, arg, signal);
    if (isPush && isTaken(answer)) this.onTaken(++this.#taken);
    return answer;
  }
}

const PUSH = bucketFactory({ IDL })._fields.find(([name]) => name === "push_chunk")?.[1].retTypes ?? [];

function isTaken(answer: Uint8Array): boolean {
  const [pushed] = IDL.decode(PUSH, answer) as unknown as [object];
  return "Ok" in pushed;
}

/** A blob by its formula. */
class Made implements Source {
  readonly name = "made";
  readonly size: number;

  constructor(private readonly step: Step) {
    this.size = step.blob?.size ?? 0;
  }

  stream(): ReadableStream<Uint8Array> {
    let at = 0;
    return new ReadableStream({
      pull: (controller) => {
        if (at >= this.size) return controller.close();
        const end = Math.min(at + CHUNK_BYTES, this.size);
        controller.enqueue(this.#bytes(at, end));
        at = end;
      },
    });
  }

  async slice(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = this.#bytes(start, end);
    return this.step.changes ? bytes.map((byte) => byte ^ 1) : bytes;
  }

  #bytes(start: number, end: number): Uint8Array<ArrayBuffer> {
    const seed = this.step.blob?.seed ?? 0;
    const bytes = new Uint8Array(end - start);
    let chunk = -1;
    let salt = 0;
    for (let i = start, rest = start % 251; i < end; i++, rest = rest === 250 ? 0 : rest + 1) {
      if (chunk !== Math.floor(i / CHUNK_BYTES)) {
        chunk = Math.floor(i / CHUNK_BYTES);
        salt = 31 * seed + 37 * chunk;
      }
      bytes[i - start] = rest ^ salt;
    }
    return bytes;
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function snakeCase(fields: object): Record<string, unknown> {
  const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [snake(name), value]));
}
