/** Where the user writes, and chooses files. */

import { useSignal } from "@preact/signals";
import type { ChatInfo } from "@openstorage/client/candid/chat";
import { useRef } from "preact/hooks";

import { Icon } from "./icons.js";
import { attempt, loadNewest } from "./rooms.js";
import { post, sendFiles } from "./uploads.js";
import { words } from "./words.js";

const TEXT = "text";

/** Puts the focus where the user writes, if what had it is gone; not where that opens a keyboard on the screen. */
export function keepFocus(): void {
  const isLost = document.activeElement === null || document.activeElement === document.body;
  if (isLost && matchMedia("(hover: hover)").matches) document.getElementById(TEXT)?.focus();
}

export function Composer({ room }: { room: ChatInfo }) {
  const text = useSignal("");
  const picker = useRef<HTMLInputElement>(null);
  const send = () => {
    const written = text.value.trim();
    if (!written) return;
    text.value = "";
    void attempt(async (current) => {
      try {
        await post(current, { chat_id: room.chat_id, text: written, blob: [], name: [], preview: [] });
      } catch (error) {
        // Nothing that was written is lost.
        text.value ||= written;
        throw error;
      }
      await loadNewest(current, false);
    });
  };
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  const picked = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    sendFiles([...(input.files ?? [])]);
    input.value = "";
  };
  return (
    <form class="composer" onSubmit={(event) => (event.preventDefault(), send())}>
      <input ref={picker} id="files" class="hidden" type="file" multiple tabIndex={-1} aria-hidden="true" onChange={picked} />
      <button type="button" class="bare" onClick={() => picker.current?.click()} aria-label={words.attach} title={words.attach}>
        <Icon name="attach" />
      </button>
      <label class="hidden" for={TEXT}>{words.write}</label>
      <textarea
        id={TEXT}
        rows={1}
        value={text.value}
        placeholder={words.writeHint}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={key}
      />
      <button class="main round" disabled={!text.value.trim()} aria-label={words.send} title={words.send}><Icon name="send" /></button>
    </form>
  );
}
