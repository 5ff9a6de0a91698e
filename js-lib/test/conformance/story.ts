/** The cases of `tests/conformance/cases.json`, told to whoever performs their steps. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { type BlobReference, referenceToCandid } from "@openstorage/client";

import { type Network, tokenFor, type User } from "../network.js";
import { packageDir } from "../support.js";
import type { Given, Outcome, Step } from "./perform.js";

interface Table {
  readonly users: Readonly<Record<string, { readonly byte_limit?: number; readonly registered?: boolean }>>;
  readonly cases: readonly { readonly name: string; readonly steps: readonly Step[] }[];
}

export const table = JSON.parse(readFileSync(new URL("../tests/conformance/cases.json", packageDir), "utf8")) as Table;

/** Does one step as a user. */
export type Performs = (user: User, step: Step, given: Given) => Promise<Outcome>;

/** A user of the table, and what it has shared last. */
interface Part {
  readonly user: User;
  /** None who is not registered has a chat. */
  readonly chat?: { readonly id: bigint; readonly accessorId: string };
  reference?: BlobReference;
  token?: Promise<string>;
}

export class Story {
  readonly #parts = new Map<string, Promise<Part>>();

  constructor(
    private readonly network: Network,
    private readonly performs: Performs,
  ) {}

  async tell(steps: readonly Step[]): Promise<void> {
    for (const [number, step] of steps.entries()) {
      const part = await this.#part(step.as);
      const outcome = await this.performs(part.user, step, await this.#given(part, step));
      const said = `step ${number + 1}, ${step.do} as ${step.as}: ${JSON.stringify(outcome)}`;
      assert.deepEqual(seen(step.expect, outcome), step.expect, said);
      if (!outcome.reference || outcome.reference.blobId === part.reference?.blobId) continue;
      part.reference = outcome.reference;
      delete part.token;
    }
  }

  #part(name: string): Promise<Part> {
    const known = this.#parts.get(name);
    if (known) return known;
    const joining = this.#join(name);
    this.#parts.set(name, joining);
    return joining;
  }

  async #join(name: string): Promise<Part> {
    const { byte_limit, registered = true } = table.users[name] ?? {};
    if (!registered) return { user: await this.network.stranger() };
    const { user, chat, accessorId } = await this.network.userWithChat();
    if (byte_limit !== undefined) await this.network.setLimit(user, byte_limit);
    return { user, chat: { id: chat.chat_id, accessorId } };
  }

  async #given(part: Part, step: Step): Promise<Given> {
    if (step.do === "upload") {
      const own = part.chat?.accessorId ?? (await this.#part("ada")).chat?.accessorId ?? "";
      return { accessorIds: step.accessors ?? [own] };
    }
    const of = step.of === undefined ? part : await this.#part(step.of);
    const { reference, chat } = of;
    assert.ok(reference && chat, "nothing has been shared");
    const bearer = step.token_of === undefined ? of : await this.#part(step.token_of);
    const token = step.token ?? (step.do === "delete" ? "" : await this.#token(bearer));
    return { accessorIds: [], shared: { reference, accessorId: chat.accessorId }, token };
  }

  /** For what the user has shared last; the chat gives it once the blob is posted. */
  #token(part: Part): Promise<string> {
    part.token ??= this.#post(part);
    return part.token;
  }

  async #post({ user, chat, reference }: Part): Promise<string> {
    assert.ok(chat && reference, "nothing has been shared");
    const message = { chat_id: chat.id, text: "", name: [] as [], preview: [] as [] };
    const answer = await user.chat.send_message({ ...message, blob: [referenceToCandid(reference)] });
    assert.ok("Ok" in answer, "the chat does not take the message");
    return (await tokenFor(user, chat.id)).token;
  }
}

/** Of the outcome what the expectation speaks of. `pushes_max` is the expected one where it has been kept. */
function seen(expected: unknown, outcome: unknown): unknown {
  if (typeof expected !== "object" || expected === null) return outcome;
  const found = (outcome ?? {}) as Record<string, unknown>;
  const entries = Object.entries(expected).map(([key, value]) => {
    if (key !== "pushes_max") return [key, seen(value, found[key])];
    const pushes = Number(found["pushes"]);
    return [key, pushes <= Number(value) ? value : pushes];
  });
  return Object.fromEntries(entries);
}
