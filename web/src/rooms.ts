/** The user's rooms and the messages of the one that is open, kept up to date by asking. */

import { signal } from "@preact/signals";
import { isOpenStorageError } from "@openstorage/client";
import type { ChatInfo, Member, Message } from "@openstorage/client/candid/chat";

import { explain, isGone, ok } from "./explain.js";
import { isSignedIn } from "./identity.js";
import { type Invite, placeIn, roomHash } from "./place.js";
import type { Session } from "./session.js";

const LATEST = 2n ** 64n - 1n;
/** So few that the chat never answers with less of them than there are. */
const PAGE_MESSAGES = 60;
const PAGE_MEMBERS = 1_000;
const ASK_MS = 2_000;
/** Every so many times the whole newest page is asked for: what was deleted shows there alone. */
const WHOLE_EVERY = 4;

export const session = signal<Session | undefined>(undefined);
export const rooms = signal<readonly ChatInfo[]>([]);
/** The number of the open room. */
export const openId = signal<bigint | undefined>(undefined);
/** What the address holds besides, where somebody was invited. */
export const invite = signal<string | undefined>(undefined);
export const messages = signal<readonly Message[]>([]);
export const hasOlder = signal(false);
/** The open room's messages are here, even if there are none. */
export const isLoaded = signal(false);
/** The chat has answered of late. */
export const isAnswering = signal(true);
/** The last thing that went wrong, or was done. */
export const notice = signal<{ readonly text: string; readonly isError: boolean } | undefined>(undefined);
interface Allowed {
  /** In bytes. */
  readonly used: number;
  readonly limit: number;
  /** Whoever is premium cannot get more. */
  readonly isPremium: boolean;
  /** The operator has set the limit, or has deleted the user. */
  readonly isFixed: boolean;
}

export const allowance = signal<Allowed | undefined>(undefined);
export const names = signal<ReadonlyMap<string, string>>(new Map());

export function openRoom(): ChatInfo | undefined {
  return rooms.value.find(({ chat_id }) => chat_id === openId.value);
}

export function say(text: string): void {
  notice.value = { text, isError: false };
}

/** Does something, and tells the user where it fails. */
export async function attempt(act: (session: Session) => Promise<void>): Promise<void> {
  const current = session.value;
  if (!current) return;
  try {
    await act(current);
  } catch (error) {
    notice.value = { text: explain(error), isError: true };
    if (isGone(error)) await closeGone(current);
  }
}

/** A room that was deleted, or in which the user is no more, leaves the list, and the view. */
async function closeGone(current: Session): Promise<void> {
  await loadRooms(current).catch(() => {});
  if (openId.value !== undefined && !openRoom()) {
    openId.value = undefined;
    messages.value = [];
    history.replaceState(null, "", "#");
  }
}

export async function loadRooms({ chat }: Session): Promise<void> {
  rooms.value = await chat.chats();
}

export async function loadAllowance({ chat, storage }: Session): Promise<void> {
  // Whom the operator has deleted the index does not know.
  const nothing = { byteLimit: 0, bytesUsed: 0 };
  const stored = storage.allowance().catch((error) => {
    if (isOpenStorageError(error) && error.code === "NotRegistered") return nothing;
    throw error;
  });
  const [{ byteLimit, bytesUsed }, me] = await Promise.all([stored, chat.me()]);
  const { premium, set_by_admin } = ok(me);
  allowance.value = { used: bytesUsed, limit: byteLimit, isPremium: premium, isFixed: set_by_admin };
}

/** Messages take the place of those with the same number. */
function merge(page: readonly Message[]): void {
  const all = new Map(messages.value.map((message) => [message.message_id, message]));
  for (const message of page) all.set(message.message_id, message);
  messages.value = [...all.values()].sort((a, b) => (a.message_id < b.message_id ? -1 : 1));
  for (const { sender } of page) void learnName(sender.toText(), sender);
}

const asked = new Set<string>();

async function learnName(id: string, user: Message["sender"]): Promise<void> {
  const current = session.value;
  if (!current || asked.has(id)) return;
  asked.add(id);
  const answer = await current.chat.profile(user).catch(() => undefined);
  const name = answer && "Ok" in answer ? answer.Ok.name[0] : undefined;
  if (name) names.value = new Map(names.value).set(id, name);
}

/** A room's newest page. */
export async function newest(chat: Session["chat"], id: bigint): Promise<Message[]> {
  return ok(await chat.messages({ chat_id: id, after: [], before: [LATEST], limit: PAGE_MESSAGES }));
}

/** Asks for the newest page, or only for what came after the last message. */
export async function loadNewest(current: Session, whole = true): Promise<void> {
  const { chat } = current;
  const id = openId.value;
  if (id === undefined) return;
  const last = messages.value.at(-1)?.message_id;
  const isWhole = whole || last === undefined;
  const page = isWhole ? await newest(chat, id) : ok(await chat.messages({ chat_id: id, after: [last], before: [], limit: PAGE_MESSAGES }));
  // Another room may have been opened meanwhile.
  if (openId.value !== id) return;
  // More than a page came while nobody looked: what lies between comes first.
  if (isWhole && last !== undefined && (page[0]?.message_id ?? last) > last) return loadNewest(current, false);
  if (messages.value.length === 0) hasOlder.value = page.length === PAGE_MESSAGES;
  isLoaded.value = true;
  if (page.length > 0) merge(page);
}

export async function loadOlder({ chat }: Session): Promise<void> {
  const id = openId.value;
  const first = messages.value[0]?.message_id;
  if (id === undefined || first === undefined) return;
  const page = ok(await chat.messages({ chat_id: id, after: [], before: [first], limit: PAGE_MESSAGES }));
  if (openId.value !== id) return;
  hasOlder.value = page.length === PAGE_MESSAGES;
  merge(page);
}

/** Who is in a room. */
export async function membersOf({ chat }: Session, { chat_id }: ChatInfo): Promise<readonly Member[]> {
  const all: Member[] = [];
  for (;;) {
    const last = all.at(-1)?.user;
    const page = ok(await chat.members({ chat_id, after: last ? [last] : [], limit: PAGE_MEMBERS }));
    all.push(...page);
    if (page.length < PAGE_MEMBERS) return all;
  }
}

/** Shows the room that the address names; one that the user is not in is offered to be joined, where it is an invitation. */
export async function follow(): Promise<void> {
  const place = placeIn(location.hash);
  const id = place?.id;
  invite.value = place?.invite;
  if (place?.invite && rooms.value.some(({ chat_id }) => chat_id === id)) forgetInvite(place);
  if (id === openId.value) return;
  openId.value = id;
  // What went wrong elsewhere is of no interest here.
  if (notice.value?.isError) notice.value = undefined;
  messages.value = [];
  hasOlder.value = false;
  isLoaded.value = false;
  if (id !== undefined && openRoom()) await attempt((current) => loadNewest(current));
}

/** Whoever shares the address of a room that it is in shares no invitation unawares. */
function forgetInvite({ id }: Invite): void {
  history.replaceState(history.state, "", roomHash(id));
  invite.value = undefined;
}

export async function joinRoom(place: Invite): Promise<void> {
  await attempt(async (current) => {
    ok(await current.chat.join_chat({ chat_id: place.id, invite: place.invite ?? "" }));
    await loadRooms(current);
    openId.value = undefined;
    if (placeIn(location.hash)?.id === place.id) forgetInvite(place);
    else location.hash = roomHash(place.id);
    await follow();
  });
}

/** The room's invitations of before open it no more. */
export async function replaceInvite({ chat_id }: ChatInfo): Promise<void> {
  await attempt(async (current) => {
    ok(await current.chat.replace_invite({ chat_id }));
    await loadRooms(current);
  });
}

export async function leaveRoom({ chat_id }: ChatInfo): Promise<void> {
  await attempt(async (current) => {
    ok(await current.chat.leave_chat({ chat_id }));
    location.hash = "";
    await loadRooms(current);
  });
}

/** Rounds in a row that failed before the user is told. */
const PATIENT_ROUNDS = 2;

/** Asks again and again while the page is seen. */
export function keepAsking(): void {
  let turn = 0;
  let failed = 0;
  const round = async (current: Session) => {
    const whole = ++turn % WHOLE_EVERY === 0;
    if (openRoom()) await loadNewest(current, whole);
    if (whole) await loadRooms(current);
  };
  const ask = async () => {
    const current = session.value;
    if (current && document.visibilityState === "visible") {
      if (!(await isSignedIn())) return location.reload();
      // A round that fails is followed by another one. A refusal is an answer.
      failed = await round(current).then(
        () => 0,
        async (error) => {
          if (!isGone(error)) return failed + 1;
          notice.value = { text: explain(error), isError: true };
          await closeGone(current);
          return 0;
        },
      );
      judge();
    }
    setTimeout(ask, ASK_MS);
  };
  // The browser may know sooner.
  const judge = () => void (isAnswering.value = navigator.onLine && failed < PATIENT_ROUNDS);
  addEventListener("offline", judge);
  addEventListener("online", judge);
  setTimeout(ask, ASK_MS);
}
