/** One room: its head, its messages, what is on its way. */

import { useSignal } from "@preact/signals";
import type { ChatInfo, Message } from "@openstorage/client/candid/chat";
import { Fragment } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { Avatar } from "./avatar.js";
import { Composer } from "./composer.js";
import { ask } from "./dialog.js";
import { dayText } from "./format.js";
import { Icon } from "./icons.js";
import { copyInvite, Members } from "./members.js";
import { Post, Waiting } from "./message.js";
import { outboxOf } from "./outbox.js";
import { deleteRoom } from "./posts.js";
import { attempt, hasOlder, isLoaded, leaveRoom, loadOlder, messages, session } from "./rooms.js";
import { UnfinishedList, UploadList, UploadSummary } from "./upload-list.js";
import { items } from "./uploads.js";
import { words } from "./words.js";

/** Pixels from the end within which the view follows what comes. */
const NEAR = 160;
/** Messages of one sender within this time stand together. */
const TOGETHER_MS = 5 * 60_000;

export function Room({ room }: { room: ChatInfo }) {
  const { list, content, isAway, toEnd, scrolled, keeping } = useFollowing();
  const waiting = outboxOf(room).waiting.value;
  // What the user sends is seen, wherever the view was.
  const sent = items.value.length + waiting.length;
  const before = useRef(sent);
  useLayoutEffect(() => {
    if (sent > before.current) toEnd();
    before.current = sent;
  }, [sent]);
  return (
    <section class="room" aria-label={room.name}>
      <Head room={room} />
      <div class="scroll" ref={list} onScroll={scrolled} tabIndex={0} role="region" aria-label={words.messages}>
        <div class="content" ref={content}>
          <div class="messages" role="log" aria-label={words.messages}>
            {hasOlder.value && (
              <button class="link" onClick={() => void attempt((current) => keeping(() => loadOlder(current)))}>{words.older}</button>
            )}
            {isLoaded.value && messages.value.length + sent === 0 && <Nothing />}
            {messages.value.map((message, i) => (
              <Fragment key={String(message.message_id)}>
                {isNewDay(message, messages.value[i - 1]) && <p class="day">{dayText(Number(message.sent_ms))}</p>}
                <Post message={message} room={room} isNext={isNext(message, messages.value[i - 1])} />
              </Fragment>
            ))}
          </div>
          {waiting.map((text, i) => <Waiting key={i} text={text} />)}
          <UploadList room={room} />
          <UnfinishedList />
        </div>
      </div>
      <footer>
        {isAway.value && (
          <button class="newest round" aria-label={words.newest} title={words.newest} onClick={toEnd}><Icon name="down" /></button>
        )}
        <UploadSummary />
        <Composer room={room} />
      </footer>
    </section>
  );
}

/** A list whose end stays in view, whatever comes or grows, until the user scrolls away from it. */
function useFollowing() {
  const list = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const isAway = useSignal(false);
  const lastTop = useRef(0);
  const toEnd = () => {
    isAway.value = false;
    if (list.current) list.current.scrollTop = list.current.scrollHeight;
  };
  useEffect(() => {
    const observer = new ResizeObserver(() => !isAway.peek() && toEnd());
    for (const { current } of [list, content]) if (current) observer.observe(current);
    return () => observer.disconnect();
  }, []);
  const scrolled = () => {
    const { current } = list;
    if (!current) return;
    const { scrollTop, scrollHeight, clientHeight } = current;
    const isNear = scrollHeight - scrollTop - clientHeight < NEAR;
    // What grows pushes the end away, and only the user goes up.
    if (isNear || scrollTop < lastTop.current) isAway.value = !isNear;
    lastTop.current = scrollTop;
  };
  /** What is in view stays there, though more comes above it. */
  const keeping = async (load: () => Promise<void>) => {
    const { current } = list;
    const below = current ? current.scrollHeight - current.scrollTop : 0;
    await load();
    requestAnimationFrame(() => current && (current.scrollTop = current.scrollHeight - below));
  };
  return { list, content, isAway, toEnd, scrolled, keeping };
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
  const isListing = useSignal(false);
  const isMine = room.owner.toText() === session.value?.me;
  const remove = () => ask(words.sureDeleteRoom, words.deleteRoom, () => void deleteRoom(room));
  return (
    <header>
      <a class="back button bare" href="#" aria-label={words.back}><Icon name="back" /></a>
      <Avatar id={room.accessor_id.toText()} name={room.name} />
      <div class="label">
        <h2 dir="auto">{room.name}</h2>
        <small>{words.members(Number(room.members))}</small>
      </div>
      <button class="wordy" aria-label={words.invite} title={words.invite} onClick={() => copyInvite(room)}><Icon name="link" /><span>{words.invite}</span></button>
      <button class="wordy" aria-label={words.memberList} title={words.memberList} onClick={() => (isListing.value = true)}><Icon name="people" /><span>{words.memberList}</span></button>
      {isMine ? (
        <button class="wordy" aria-label={words.deleteRoom} title={words.deleteRoom} onClick={remove}><Icon name="trash" /><span>{words.deleteRoom}</span></button>
      ) : (
        <button class="wordy" aria-label={words.leave} title={words.leave} onClick={() => void leaveRoom(room)}><Icon name="leave" /><span>{words.leave}</span></button>
      )}
      {isListing.value && <Members room={room} isMine={isMine} onClose={() => (isListing.value = false)} />}
    </header>
  );
}
