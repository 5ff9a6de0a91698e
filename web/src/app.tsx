/** The page once the user is known: rooms at the side, one of them open. */

import { useSignal } from "@preact/signals";

import { bytesText } from "./format.js";
import { signOut } from "./identity.js";
import { ok } from "./explain.js";
import { Room } from "./room.js";
import { allowance, attempt, loadRooms, notice, openId, openRoom, rooms } from "./rooms.js";
import { goPremium, isRoomy, sendFiles } from "./uploads.js";
import { words } from "./words.js";

/** Files that are dropped or pasted anywhere go to the open room. */
function filesOf(data: DataTransfer | null): File[] {
  return [...(data?.files ?? [])];
}

export function App() {
  const isOver = useSignal(false);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    isOver.value = false;
    sendFiles(filesOf(event.dataTransfer));
  };
  const over = (event: DragEvent) => {
    event.preventDefault();
    if (event.dataTransfer?.types.includes("Files")) isOver.value = true;
  };
  const paste = (event: ClipboardEvent) => {
    const files = filesOf(event.clipboardData);
    if (files.length === 0) return;
    event.preventDefault();
    sendFiles(files);
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
        {room ? <Room key={String(room.chat_id)} room={room} /> : <Elsewhere />}
      </main>
      {isOver.value && room && <div class="over">{words.dropHere}</div>}
      <Notice />
    </div>
  );
}

function Notice() {
  const now = notice.value;
  return (
    <div class="notices" role={now?.isError ? "alert" : "status"}>
      {now && (
        <p class={now.isError ? "notice bad" : "notice"}>
          <span>{now.text}</span>
          <button onClick={() => (notice.value = undefined)}>{words.close}</button>
        </p>
      )}
    </div>
  );
}

function Side() {
  const create = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const name = String(new FormData(form).get("name")).trim();
    void attempt(async (current) => {
      const { chat_id } = ok(await current.chat.create_chat({ name }));
      form.reset();
      await loadRooms(current);
      location.hash = `#/room/${chat_id}`;
    });
  };
  return (
    <nav class="side" aria-label={words.rooms}>
      <h1>{words.title}</h1>
      <ul>
        {rooms.value.map(({ chat_id, name, members }) => (
          <li key={String(chat_id)}>
            <a href={`#/room/${chat_id}`} aria-current={chat_id === openId.value ? "page" : undefined}>
              <span>{name}</span>
              <small>{words.members(Number(members))}</small>
            </a>
          </li>
        ))}
      </ul>
      {rooms.value.length === 0 && <p class="quiet">{words.noRooms}</p>}
      <form class="line" onSubmit={create}>
        <label class="hidden" for="new-room">{words.roomName}</label>
        <input id="new-room" name="name" required maxLength={60} placeholder={words.newRoom} />
        <button>{words.create}</button>
      </form>
      <Join />
      <Allowance />
      <button class="link" onClick={() => void signOut().then(() => location.reload())}>{words.signOut}</button>
    </nav>
  );
}

async function joinRoom(id: bigint): Promise<void> {
  await attempt(async (current) => {
    ok(await current.chat.join_chat({ chat_id: id }));
    await loadRooms(current);
    openId.value = undefined;
    location.hash = "";
    location.hash = `#/room/${id}`;
  });
}

function Join() {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const id = BigInt(String(new FormData(form).get("id")));
    form.reset();
    void joinRoom(id);
  };
  return (
    <form class="line" onSubmit={submit}>
      <label class="hidden" for="join-room">{words.roomNumber}</label>
      <input id="join-room" name="id" required inputMode="numeric" pattern="\d{1,18}" placeholder={words.roomNumber} />
      <button>{words.join}</button>
    </form>
  );
}

function Allowance() {
  const now = allowance.value;
  if (!now) return null;
  const text = words.stored(bytesText(now.used), bytesText(now.limit));
  return (
    <div class="allowance">
      <meter min={0} max={now.limit} value={now.used} high={now.limit * 0.9} aria-label={text} />
      <small>{text}</small>
      {!isRoomy() && (
        <button onClick={() => void goPremium()}>
          {words.premium} <small>({words.premiumNote})</small>
        </button>
      )}
    </div>
  );
}

/** No room is open, or one that the user is not in. */
function Elsewhere() {
  const id = openId.value;
  return (
    <div class="empty">
      {id === undefined ? (
        <p>{words.pickRoom}</p>
      ) : (
        <>
          <p>{words.joinRoom}: {String(id)}</p>
          <button class="main" onClick={() => void joinRoom(id)}>{words.join}</button>
          <a href="#">{words.back}</a>
        </>
      )}
    </div>
  );
}
