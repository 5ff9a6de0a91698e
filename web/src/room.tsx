/** One room: its messages, what is on its way, and where the user writes. */

import { useSignal } from "@preact/signals";
import type { ChatInfo } from "@openstorage/client/candid/chat";
import { useLayoutEffect, useRef } from "preact/hooks";

import { Post } from "./message.js";
import { deleteRoom } from "./posts.js";
import { ok } from "./explain.js";
import { attempt, hasOlder, loadNewest, loadOlder, loadRooms, messages, session } from "./rooms.js";
import { UploadList } from "./upload-list.js";
import { post, sendFiles } from "./uploads.js";
import { words } from "./words.js";

/** Pixels from the end within which the view follows what comes. */
const NEAR = 160;

export function Room({ room }: { room: ChatInfo }) {
  const list = useRef<HTMLDivElement>(null);
  const isNear = useRef(true);
  const last = messages.value.at(-1)?.message_id;
  useLayoutEffect(() => {
    if (isNear.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [last]);
  const scrolled = () => {
    const { current } = list;
    if (current) isNear.current = current.scrollHeight - current.scrollTop - current.clientHeight < NEAR;
  };
  // A picture that has come makes the list longer.
  const grown = () => {
    if (isNear.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  };
  return (
    <section class="room" aria-label={room.name}>
      <Head room={room} />
      <div class="messages" ref={list} onScroll={scrolled} onLoadCapture={grown} tabIndex={0} role="log" aria-label={room.name}>
        {hasOlder.value && (
          <button class="link" onClick={() => void attempt(loadOlder)}>{words.older}</button>
        )}
        {messages.value.length === 0 && <p class="quiet">{words.noMessages}</p>}
        {messages.value.map((message) => (
          <Post key={String(message.message_id)} message={message} room={room} />
        ))}
      </div>
      <UploadList />
      <Composer room={room} />
    </section>
  );
}

function Head({ room }: { room: ChatInfo }) {
  const isCopied = useSignal(false);
  const isMine = room.owner.toText() === session.value?.me;
  const copy = () => void navigator.clipboard.writeText(location.href).then(() => (isCopied.value = true), () => {});
  const leave = () =>
    void attempt(async (current) => {
      ok(await current.chat.leave_chat({ chat_id: room.chat_id }));
      location.hash = "";
      await loadRooms(current);
    });
  return (
    <header>
      <a class="back" href="#">{words.back}</a>
      <h2>{room.name}</h2>
      <small>№ {String(room.chat_id)}</small>
      <button onClick={copy}>{isCopied.value ? words.copied : words.invite}</button>
      {isMine ? (
        <button onClick={() => confirm(words.sureDeleteRoom) && void deleteRoom(room)}>{words.deleteRoom}</button>
      ) : (
        <button onClick={leave}>{words.leave}</button>
      )}
    </header>
  );
}

function Composer({ room }: { room: ChatInfo }) {
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
      <input ref={picker} id="files" class="hidden" type="file" multiple tabIndex={-1} aria-label={words.attach} onChange={picked} />
      <button type="button" onClick={() => picker.current?.click()} aria-label={words.attach} title={words.attach}>＋</button>
      <label class="hidden" for="text">{words.write}</label>
      <textarea id="text" rows={1} value={text.value} placeholder={words.write} onInput={(event) => (text.value = event.currentTarget.value)} onKeyDown={key} />
      <button class="main">{words.send}</button>
    </form>
  );
}
