/** What stands at the side: the rooms, the way into others, the allowance, the user. */

import { Avatar } from "./avatar.js";
import { bytesText } from "./format.js";
import { Icon } from "./icons.js";
import { keptName, signOut } from "./identity.js";
import { ok } from "./explain.js";
import { allowance, attempt, joinRoom, loadRooms, openId, rooms, session } from "./rooms.js";
import { goPremium, isRoomy } from "./uploads.js";
import { words } from "./words.js";

export function Side() {
  return (
    <nav class="side" aria-label={words.rooms}>
      <h1>
        <img src="/favicon.svg" alt="" width="28" height="28" />
        {words.title}
      </h1>
      <ul class="rooms">
        {rooms.value.map(({ chat_id, name, members, accessor_id }) => (
          <li key={String(chat_id)}>
            <a href={`#/room/${chat_id}`} aria-current={chat_id === openId.value ? "page" : undefined}>
              <Avatar id={accessor_id.toText()} name={name} />
              <span class="label">
                <span dir="auto">{name}</span>
                <small>{words.members(Number(members))}</small>
              </span>
            </a>
          </li>
        ))}
      </ul>
      {rooms.value.length === 0 && <p class="quiet">{words.noRooms}</p>}
      <Create />
      <Join />
      <Allowance />
      <Me />
    </nav>
  );
}

function Create() {
  const create = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const name = String(new FormData(form).get("name")).trim();
    if (!name) return;
    void attempt(async (current) => {
      const { chat_id } = ok(await current.chat.create_chat({ name }));
      form.reset();
      await loadRooms(current);
      location.hash = `#/room/${chat_id}`;
    });
  };
  return (
    <form class="line" onSubmit={create}>
      <label class="hidden" for="new-room">{words.roomName}</label>
      <input id="new-room" name="name" required maxLength={60} dir="auto" placeholder={words.newRoom} autocomplete="off" />
      <button>{words.create}</button>
    </form>
  );
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
      <input id="join-room" name="id" required inputMode="numeric" pattern="\d{1,18}" placeholder={words.roomNumber} autocomplete="off" />
      <button>{words.join}</button>
    </form>
  );
}

/** Above it, the rest is worth a warning. */
const NEARLY_FULL = 0.9;

function Allowance() {
  const now = allowance.value;
  if (!now) return null;
  const text = words.stored(bytesText(now.used), bytesText(now.limit));
  const isFull = now.used > now.limit * NEARLY_FULL;
  return (
    <section class={isFull ? "allowance full" : "allowance"} aria-label={words.storage}>
      <meter min={0} max={now.limit} value={now.used} high={now.limit * NEARLY_FULL} aria-label={text} />
      <p>
        <small>{text}</small>
        {!isRoomy() && (
          <button class="small" title={words.premiumNote} onClick={() => void goPremium()}>{words.premium}</button>
        )}
      </p>
    </section>
  );
}

function Me() {
  const me = session.value?.me ?? "";
  const name = keptName() || words.you;
  return (
    <div class="me">
      <Avatar id={me} name={name} />
      <span class="label">
        <span dir="auto">{name}</span>
        <small title={me}>{me.slice(0, 11)}…</small>
      </span>
      <button class="bare" aria-label={words.signOut} title={words.signOut} onClick={() => void signOut().then(() => location.reload())}>
        <Icon name="leave" />
      </button>
    </div>
  );
}
