/** Who is in a room, and how others come in. */

import { useSignal } from "@preact/signals";
import type { ChatInfo, Member } from "@openstorage/client/candid/chat";
import { useEffect } from "preact/hooks";

import { Avatar } from "./avatar.js";
import { Dialog } from "./dialog.js";
import { inviteLink } from "./place.js";
import { attempt, membersOf, notice, replaceInvite, say, session } from "./rooms.js";
import { words } from "./words.js";

export function copyInvite(room: ChatInfo): void {
  const link = inviteLink(room);
  const failed = () => (notice.value = { text: words.notCopied(link), isError: true });
  // Browsers have a clipboard on secure pages only.
  if (!navigator.clipboard) failed();
  else void navigator.clipboard.writeText(link).then(() => say(words.copied), failed);
}

export function Members({ room, isMine, onClose }: { room: ChatInfo; isMine: boolean; onClose: () => void }) {
  const members = useSignal<readonly Member[]>([]);
  useEffect(() => void attempt(async (current) => void (members.value = await membersOf(current, room))), [room.members]);
  const owner = room.owner.toText();
  return (
    <Dialog class="ask" label={words.memberList} onClose={onClose}>
      <form method="dialog">
        <h2>{words.memberList}</h2>
        <ul class="people">
          {members.value.map(({ user, name }) => {
            const id = user.toText();
            const shown = id === session.value?.me ? words.you : (name[0] ?? `${id.slice(0, 5)}…`);
            return (
              <li key={id}>
                <Avatar id={id} name={shown} />
                <span class="label">
                  <span dir="auto">{shown}</span>
                  {id === owner && <small>{words.owner}</small>}
                </span>
              </li>
            );
          })}
        </ul>
        <label>
          {words.roomLink}
          <input readOnly value={inviteLink(room)} onFocus={(event) => event.currentTarget.select()} />
        </label>
        <p class="quiet">{isMine ? words.inviteNoteOwner : words.inviteNote}</p>
        <div class="buttons">
          <button class="main" autofocus onClick={() => copyInvite(room)}>{words.invite}</button>
          {isMine && <button type="button" onClick={() => void replaceInvite(room).then(() => say(words.inviteReplaced))}>{words.newInvite}</button>}
          <button>{words.close}</button>
        </div>
      </form>
    </Dialog>
  );
}
