/** The page once the user is known: rooms at the side, one of them open. */

import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { Asking } from "./dialog.js";
import { droppedFiles } from "./dropped.js";
import { Icon } from "./icons.js";
import { Room } from "./room.js";
import { invite, isAnswering, joinRoom, notice, openId, openRoom } from "./rooms.js";
import { Side } from "./side.js";
import { UnfinishedList } from "./upload-list.js";
import { batch, items, sendFiles } from "./uploads.js";
import { errors, words } from "./words.js";

/** Files that are dropped or pasted anywhere go to the open room. */
export function App() {
  const isOver = useSignal(false);
  useSignalEffect(() => {
    const { bytesDone, bytesTotal } = batch.value;
    const isSending = items.value.length > 0;
    document.title = words.titleOf(openRoom()?.name, isSending ? Math.floor((100 * bytesDone) / Math.max(1, bytesTotal)) : undefined);
  });
  const drop = (event: DragEvent) => {
    event.preventDefault();
    isOver.value = false;
    void droppedFiles(event.dataTransfer).then(sendFiles, () => (notice.value = { text: errors.SourceUnreadable, isError: true }));
  };
  const over = (event: DragEvent) => {
    event.preventDefault();
    if (event.dataTransfer?.types.includes("Files")) isOver.value = true;
  };
  const paste = (event: ClipboardEvent) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    sendFiles(files.map((file) => ({ file })));
  };
  const room = openRoom();
  return (
    <div
      class={`app ${openId.value === undefined ? "listing" : "reading"}`}
      onDrop={drop}
      onDragOver={over}
      onDragLeave={(event) => event.relatedTarget === null && (isOver.value = false)}
      onPaste={paste}
    >
      <Side />
      <main>
        {!isAnswering.value && <p class="banner" role="status"><Icon name="warning" />{words.notAnswering}</p>}
        {room ? <Room key={String(room.chat_id)} room={room} /> : <Elsewhere />}
      </main>
      {isOver.value && room && <div class="over"><Icon name="save" /><p>{words.dropHere(room.name)}</p></div>}
      <Notice />
      <Asking />
    </div>
  );
}

/** How long a notice stays that asks for nothing. */
const NOTICE_MS = 6_000;

function Notice() {
  const now = notice.value;
  useEffect(() => {
    if (!now || now.isError) return;
    const timer = setTimeout(() => (notice.value = undefined), NOTICE_MS);
    return () => clearTimeout(timer);
  }, [now]);
  return (
    <div class="notices" role={now?.isError ? "alert" : "status"}>
      {now && (
        <p class={now.isError ? "notice bad" : "notice"}>
          {now.isError && <Icon name="warning" />}
          <span dir="auto">{now.text}</span>
          <button class="bare" aria-label={words.close} title={words.close} onClick={() => (notice.value = undefined)}><Icon name="close" /></button>
        </p>
      )}
    </div>
  );
}

/** No room is open, or one that the user is not in. */
function Elsewhere() {
  const id = openId.value;
  const code = invite.value;
  return (
    <div class="elsewhere">
      <UnfinishedList />
      <div class="empty">
        <Icon name="box" />
        {id === undefined ? (
          <p>{words.pickRoom}</p>
        ) : (
          <>
            <p>{code === undefined ? words.notInRoom : words.joinRoom}</p>
            {code !== undefined && <button class="main" onClick={() => void joinRoom({ id, invite: code })}>{words.join}</button>}
            <a href="#">{words.back}</a>
          </>
        )}
      </div>
    </div>
  );
}
