/** A message and what can be done with it. */

import { useSignal } from "@preact/signals";
import type { ChatInfo, Message } from "@openstorage/client/candid/chat";

import { Attached } from "./attachment.js";
import { Avatar } from "./avatar.js";
import { keepFocus } from "./composer.js";
import { ask, Dialog } from "./dialog.js";
import { momentText, timeText } from "./format.js";
import { Icon } from "./icons.js";
import { attachmentOf, deleteMessage, forward } from "./posts.js";
import { names, rooms, session } from "./rooms.js";
import { words } from "./words.js";

interface PostProps {
  message: Message;
  room: ChatInfo;
  /** It goes on with what the same sender wrote just before. */
  isNext: boolean;
}

export function Post({ message, room, isNext }: PostProps) {
  const sender = message.sender.toText();
  const isMine = sender === session.value?.me;
  const access = message.blob[0];
  const who = isMine ? words.you : (names.value.get(sender) ?? `${sender.slice(0, 5)}…`);
  if (message.deleted) {
    return <p class="gone" data-id={String(message.message_id)}>{who}: {words.deletedMessage}</p>;
  }
  const preview = message.preview[0] && Uint8Array.from(message.preview[0]);
  const sentMs = Number(message.sent_ms);
  const time = <time dateTime={new Date(sentMs).toISOString()} title={momentText(sentMs)}>{timeText(sentMs)}</time>;
  const sides = `${isMine ? "post mine" : "post"}${isNext ? " next" : ""}`;
  return (
    <article class={sides} data-id={String(message.message_id)}>
      {!isMine && <Avatar id={sender} name={who} />}
      <div class="bubble">
        <span class={isMine || isNext ? "hidden" : "who"} dir="auto">{who}</span>
        {access && <Attached attachment={attachmentOf(access)} name={message.name[0]} preview={preview} time={time} />}
        {message.text && <Text text={message.text} />}
        {!access && time}
      </div>
      <Actions message={message} room={room} mayDelete={isMine || room.owner.toText() === session.value?.me} />
    </article>
  );
}

/** What was sent off and is not there yet. */
export function Waiting({ text }: { text: string }) {
  return (
    <article class="post mine">
      <div class="bubble">
        <Text text={text} />
        <small role="status">{words.posting}</small>
      </div>
    </article>
  );
}

/** Web addresses, without what ends a sentence around them. */
const ADDRESS = /(https?:\/\/[^\s<>"]*[^\s<>".,:;!?)\]'])/;

/** In the direction of its own script, with addresses as links. */
function Text({ text }: { text: string }) {
  return (
    <p class="text" dir="auto">
      {text.split(ADDRESS).map((part, i) => (i % 2 === 1 ? <a key={i} href={part} target="_blank" rel="noopener noreferrer">{part}</a> : part))}
    </p>
  );
}

function Actions({ message, room, mayDelete }: { message: Message; room: ChatInfo; mayDelete: boolean }) {
  const isChoosing = useSignal(false);
  const others = rooms.value.filter(({ chat_id }) => chat_id !== room.chat_id);
  const remove = () => ask(words.sureDelete(message.name[0]), words.deleteMessage, () => void deleteMessage(message).then(keepFocus));
  const close = () => (isChoosing.value = false);
  return (
    <div class="actions">
      <button class="bare" aria-label={words.forward} title={words.forward} onClick={() => (isChoosing.value = true)}><Icon name="forward" /></button>
      {mayDelete && (
        <button class="bare" aria-label={words.deleteMessage} title={words.deleteMessage} onClick={remove}><Icon name="trash" /></button>
      )}
      {isChoosing.value && (
        <Dialog class="ask" label={words.forwardTo} onClose={close}>
          <form method="dialog">
            <h2>{words.forwardTo}</h2>
            {others.length === 0 && <p>{words.noOtherRoom}</p>}
            <ul class="rooms">
              {others.map((other) => (
                <li key={String(other.chat_id)}>
                  <button class="bare" onClick={() => void forward(message, other)}>
                    <Avatar id={other.accessor_id.toText()} name={other.name} />
                    <span class="label"><span dir="auto">{other.name}</span></span>
                  </button>
                </li>
              ))}
            </ul>
            <div class="buttons"><button>{words.cancel}</button></div>
          </form>
        </Dialog>
      )}
    </div>
  );
}
