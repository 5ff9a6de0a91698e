/** One room: its head, its messages, what is on its way. */

import { useSignal } from "@preact/signals";
import type { ChatInfo, Message } from "@openstorage/client/candid/chat";
import { Fragment } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

import { Avatar } from "./avatar.js";
import { Composer } from "./composer.js";
import { ask } from "./dialog.js";
import { dayText } from "./format.js";
import { Icon } from "./icons.js";
import { Post } from "./message.js";
import { deleteRoom } from "./posts.js";
import { attempt, hasOlder, isLoaded, leaveRoom, loadOlder, messages, session } from "./rooms.js";
import { UnfinishedList, UploadList, UploadSummary } from "./upload-list.js";
import { items, unfinished } from "./uploads.js";
import { words } from "./words.js";

/** Pixels from the end within which the view follows what comes. */
const NEAR = 160;
/** Messages of one sender within this time stand together. */
const TOGETHER_MS = 5 * 60_000;

export function Room({ room }: { room: ChatInfo }) {
  const list = useRef<HTMLDivElement>(null);
  const isNear = useRef(true);
  const last = messages.value.at(-1)?.message_id;
  const toEnd = () => {
    if (isNear.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  };
  const failed = items.value.filter(({ stage }) => stage === "failed").length;
  useLayoutEffect(toEnd, [last, items.value.length, failed, unfinished.value.length]);
  const scrolled = () => {
    const { current } = list;
    if (current) isNear.current = current.scrollHeight - current.scrollTop - current.clientHeight < NEAR;
  };
  return (
    <section class="room" aria-label={room.name}>
      <Head room={room} />
      {/* A picture that has come may make the list longer. */}
      <div class="scroll" ref={list} onScroll={scrolled} onLoadCapture={toEnd} tabIndex={0} role="region" aria-label={words.messages}>
        <div class="messages" role="log" aria-label={words.messages}>
          {hasOlder.value && (
            <button class="link" onClick={() => void attempt(loadOlder)}>{words.older}</button>
          )}
          {isLoaded.value && messages.value.length + items.value.length === 0 && <Nothing />}
          {messages.value.map((message, i) => (
            <Fragment key={String(message.message_id)}>
              {isNewDay(message, messages.value[i - 1]) && <p class="day">{dayText(Number(message.sent_ms))}</p>}
              <Post message={message} room={room} isNext={isNext(message, messages.value[i - 1])} />
            </Fragment>
          ))}
        </div>
        <UploadList room={room} />
        <UnfinishedList />
      </div>
      <footer>
        <UploadSummary />
        <Composer room={room} />
      </footer>
    </section>
  );
}

function isNewDay(message: Message, before: Message | undefined): boolean {
  const dayOf = ({ sent_ms }: Message) => new Date(Number(sent_ms)).toDateString();
  return before === undefined || dayOf(before) !== dayOf(message);
}

function isNext(message: Message, before: Message | undefined): boolean {
  if (!before || before.deleted || isNewDay(message, before)) return false;
  const isSame = before.sender.toText() === message.sender.toText();
  return isSame && Number(message.sent_ms - before.sent_ms) < TOGETHER_MS;
}

function Nothing() {
  return (
    <div class="empty">
      <Icon name="box" />
      <p>{words.noMessages}</p>
    </div>
  );
}

function Head({ room }: { room: ChatInfo }) {
  const isCopied = useSignal(false);
  const isMine = room.owner.toText() === session.value?.me;
  const copy = () => void navigator.clipboard.writeText(location.href).then(() => (isCopied.value = true), () => {});
  const remove = () => ask(words.sureDeleteRoom, words.deleteRoom, () => void deleteRoom(room));
  return (
    <header>
      <a class="back button bare" href="#" aria-label={words.back}><Icon name="back" /></a>
      <Avatar id={room.accessor_id.toText()} name={room.name} />
      <div class="label">
        <h2>{room.name}</h2>
        <small>{words.members(Number(room.members))} · № {String(room.chat_id)}</small>
      </div>
      <button class="wordy" aria-label={words.invite} title={words.invite} onClick={copy}><Icon name="link" /><span>{isCopied.value ? words.copied : words.invite}</span></button>
      {isMine ? (
        <button class="wordy" aria-label={words.deleteRoom} title={words.deleteRoom} onClick={remove}><Icon name="trash" /><span>{words.deleteRoom}</span></button>
      ) : (
        <button class="wordy" aria-label={words.leave} title={words.leave} onClick={() => void leaveRoom(room)}><Icon name="leave" /><span>{words.leave}</span></button>
      )}
    </header>
  );
}
