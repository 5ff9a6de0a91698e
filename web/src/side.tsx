/** What stands at the side: the rooms, the way into others, the allowance, the user. */

import { Avatar } from "./avatar.js";
import { bytesText } from "./format.js";
import { Icon } from "./icons.js";
import { keptName } from "./identity.js";
import { ask } from "./dialog.js";
import { ok } from "./explain.js";
import { isLocal, placeIn, roomHash } from "./place.js";
import { allowance, attempt, joinRoom, loadRooms, notice, openId, rooms, session } from "./rooms.js";
import { leave } from "./session.js";
import { goPremium, heldBytes } from "./uploads.js";
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
            <a href={roomHash(chat_id)} aria-current={chat_id === openId.value ? "page" : undefined}>
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
      location.hash = roomHash(chat_id);
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
    const place = placeIn(String(new FormData(form).get("link")));
    if (!place?.invite) return void (notice.value = { text: words.noInvite, isError: true });
    form.reset();
    void joinRoom(place);
  };
  return (
    <form class="line" onSubmit={submit}>
      <label class="hidden" for="join-room">{words.inviteLink}</label>
      <input id="join-room" name="link" required inputMode="url" placeholder={words.inviteLink} autocomplete="off" />
      <button>{words.join}</button>
    </form>
  );
}

/** Above it, the rest is worth a warning. */
const NEARLY_FULL = 0.9;

function Allowance() {
  const now = allowance.value;
  if (!now) return null;
  const held = heldBytes.value;
  const heldText = held > 0 ? words.held(bytesText(held)) : undefined;
  const text = [words.stored(bytesText(now.used), bytesText(now.limit)), heldText].filter(Boolean).join(", ");
  const isFull = now.used + held > now.limit * NEARLY_FULL;
  return (
    <section class={isFull ? "allowance full" : "allowance"} aria-label={words.storage}>
      <meter min={0} max={now.limit} value={now.used + held} high={now.limit * NEARLY_FULL} aria-label={text} />
      <p>
        <small>{words.of(bytesText(now.used), bytesText(now.limit))}</small>
        {heldText && <small>{heldText}</small>}
        {now.isFixed && <small>{words.fixedLimit}</small>}
        {!now.isPremium && !now.isFixed && (
          <button class="small" title={words.premiumNote} onClick={() => void goPremium()}>{words.premium}</button>
        )}
      </p>
    </section>
  );
}

function Me() {
  const me = session.value?.me ?? "";
  const name = keptName() || words.you;
  const out = () => void leave(session.value).then(() => location.reload());
  // A local key is nowhere else; Internet Identity gives the same user back.
  const click = () => (isLocal ? ask(words.sureSignOut, words.signOut, out) : out());
  return (
    <div class="me">
      <Avatar id={me} name={name} />
      <span class="label">
        <span dir="auto">{name}</span>
        <small title={me}>{me.slice(0, 11)}…</small>
      </span>
      <button class="bare" aria-label={words.signOut} title={words.signOut} onClick={click}>
        <Icon name="leave" />
      </button>
    </div>
  );
}
