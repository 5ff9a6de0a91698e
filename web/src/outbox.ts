/** What the user writes in a room: what is being written, and what was sent off and is not there yet. */

import { signal } from "@preact/signals";
import type { ChatInfo } from "@openstorage/client/candid/chat";

import { attempt, loadNewest } from "./rooms.js";
import { postOnce } from "./uploads.js";

export class Outbox {
  readonly draft = signal("");
  /** In the order in which it was written, which is the order in which it is posted. */
  readonly waiting = signal<readonly string[]>([]);

  constructor(private readonly chat_id: ChatInfo["chat_id"]) {}

  send(): void {
    const written = this.draft.value.trim();
    if (!written) return;
    this.draft.value = "";
    this.waiting.value = [...this.waiting.value, written];
    if (this.waiting.value.length === 1) void attempt((session) => this.#postAll(session));
  }

  async #postAll(session: Parameters<typeof postOnce>[0]): Promise<void> {
    try {
      for (let text; (text = this.waiting.value[0]) !== undefined; ) {
        await postOnce(session, { chat_id: this.chat_id, text, blob: [], name: [], preview: [] });
        // The message takes the place of what was on its way.
        await loadNewest(session, false).catch(() => {});
        this.waiting.value = this.waiting.value.slice(1);
      }
    } catch (error) {
      // Nothing that was written is lost.
      this.draft.value = [...this.waiting.value, this.draft.value].filter(Boolean).join("\n");
      this.waiting.value = [];
      throw error;
    }
  }
}

const outboxes = new Map<bigint, Outbox>();

/** A room's, for as long as the page is open: whoever looks into another room finds it again. */
export function outboxOf({ chat_id }: ChatInfo): Outbox {
  const outbox = outboxes.get(chat_id) ?? new Outbox(chat_id);
  outboxes.set(chat_id, outbox);
  return outbox;
}
