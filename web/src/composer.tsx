/** Where the user writes, and chooses files. */

import type { ChatInfo } from "@openstorage/client/candid/chat";
import { useRef } from "preact/hooks";

import { Icon } from "./icons.js";
import { outboxOf } from "./outbox.js";
import { sendFiles } from "./uploads.js";
import { words } from "./words.js";

const TEXT = "text";

/** Puts the focus where the user writes, if what had it is gone; not where that opens a keyboard on the screen. */
export function keepFocus(): void {
  const isLost = document.activeElement === null || document.activeElement === document.body;
  if (isLost && matchMedia("(hover: hover)").matches) document.getElementById(TEXT)?.focus();
}

export function Composer({ room }: { room: ChatInfo }) {
  const outbox = outboxOf(room);
  const { draft } = outbox;
  const picker = useRef<HTMLInputElement>(null);
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    outbox.send();
  };
  const picked = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    sendFiles([...(input.files ?? [])].map((file) => ({ file })));
    input.value = "";
  };
  return (
    <form class="composer" onSubmit={(event) => (event.preventDefault(), outbox.send())}>
      <input ref={picker} id="files" class="hidden" type="file" multiple tabIndex={-1} aria-hidden="true" onChange={picked} />
      <button type="button" class="bare" onClick={() => picker.current?.click()} aria-label={words.attach} title={words.attach}>
        <Icon name="attach" />
      </button>
      <label class="hidden" for={TEXT}>{words.write}</label>
      <textarea
        id={TEXT}
        rows={1}
        dir="auto"
        value={draft.value}
        placeholder={words.writeHint}
        onInput={(event) => (draft.value = event.currentTarget.value)}
        onKeyDown={key}
      />
      <button class="main round" disabled={!draft.value.trim()} aria-label={words.send} title={words.send}><Icon name="send" /></button>
    </form>
  );
}
