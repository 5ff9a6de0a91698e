/** A message and what it shows. */

import { useSignal } from "@preact/signals";
import type { ChatInfo, Message } from "@openstorage/client/candid/chat";
import type { Shown } from "@openstorage/client/elements";
import type { ComponentChildren } from "preact";

import { bytesText, timeText } from "./format.js";
import { attachmentOf, type Attachment, deleteMessage, forward, save } from "./posts.js";
import { previewUrl } from "./preview.js";
import { names, rooms, session } from "./rooms.js";
import { words } from "./words.js";

export function Post({ message, room }: { message: Message; room: ChatInfo }) {
  const sender = message.sender.toText();
  const isMine = sender === session.value?.me;
  const mayDelete = isMine || room.owner.toText() === session.value?.me;
  const access = message.blob[0];
  const who = isMine ? words.you : (names.value.get(sender) ?? `${sender.slice(0, 5)}…`);
  if (message.deleted) {
    return <p class="gone" data-id={String(message.message_id)}>{who}: {words.deletedMessage}</p>;
  }
  return (
    <article class={isMine ? "post mine" : "post"} data-id={String(message.message_id)}>
      <small class="who">{who} · <time>{timeText(Number(message.sent_ms))}</time></small>
      {access && <Attached attachment={attachmentOf(access)} name={message.name[0]} preview={message.preview[0]} />}
      {message.text && <p>{message.text}</p>}
      <Actions message={message} room={room} mayDelete={mayDelete} />
    </article>
  );
}

function Actions({ message, room, mayDelete }: { message: Message; room: ChatInfo; mayDelete: boolean }) {
  const isChoosing = useSignal(false);
  const others = rooms.value.filter(({ chat_id }) => chat_id !== room.chat_id);
  return (
    <div class="actions">
      <button aria-expanded={isChoosing.value} onClick={() => (isChoosing.value = !isChoosing.value)}>{words.forward}</button>
      {mayDelete && <button onClick={() => void deleteMessage(message)}>{words.deleteMessage}</button>}
      {isChoosing.value && (
        <div class="choice" role="group" aria-label={words.forwardTo}>
          {others.length === 0 && <small>{words.noOtherRoom}</small>}
          {others.map((other) => (
            <button
              key={String(other.chat_id)}
              onClick={() => {
                isChoosing.value = false;
                void forward(message, other);
              }}
            >
              {other.name}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

interface AttachedProps {
  attachment: Attachment;
  name: string | undefined;
  preview: Uint8Array | number[] | undefined;
}

function Attached({ attachment, name = words.file, preview }: AttachedProps) {
  const { reference, accessorId, token } = attachment;
  const shown: Shown = { reference, accessorId, name, ...(token !== undefined && { token }) };
  // The element keeps what it shows as a property: an attribute could not hold it.
  const show = (element: { shown: Shown | undefined } | null) => {
    if (element) element.shown = shown;
  };
  const kind = reference.size > 0 ? reference.mimeType.split("/")[0] : "";
  const placeholder = preview && <img slot="placeholder" class="preview" src={previewUrl(preview)} alt="" />;
  const Tag = kind === "image" ? "stored-image" : "stored-video";
  return (
    <figure>
      {(kind === "image" || kind === "video") && (
        <Tag ref={show} alt={words.picture(name)}>{placeholder}</Tag>
      )}
      <figcaption>
        <span class="name">{name}</span>
        <small>{bytesText(reference.size)}</small>
        <Save attachment={attachment} name={name} />
      </figcaption>
    </figure>
  );
}

function Save({ attachment, name }: { attachment: Attachment; name: string }) {
  const isBusy = useSignal(false);
  const start = () => {
    isBusy.value = true;
    void save(attachment, name).then(() => (isBusy.value = false));
  };
  return (
    <button disabled={isBusy.value} onClick={start} aria-label={`${words.save} ${name}`}>
      {isBusy.value ? words.saving : words.save}
    </button>
  );
}

type StoredAttributes = {
  alt?: string;
  ref?: (element: { shown: Shown | undefined } | null) => void;
  children?: ComponentChildren;
};

declare module "preact" {
  namespace JSX {
    interface IntrinsicElements {
      "stored-image": StoredAttributes;
      "stored-video": StoredAttributes;
    }
  }
}
