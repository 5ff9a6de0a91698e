/** Files on their way into a room: uploaded, then posted. */

import { computed, signal } from "@preact/signals";
import { isOpenStorageError, type OpenUpload, type Progress, referenceToCandid, type Upload } from "@openstorage/client";
import type { ChatInfo, Message } from "@openstorage/client/candid/chat";

import type { Dropped } from "./dropped.js";
import { explain, ok, Refused } from "./explain.js";
import { patiently } from "./patience.js";
import { kindOf } from "./kinds.js";
import { previewOf } from "./preview.js";
import { allowance, attempt, isAnswering, loadAllowance, loadNewest, messages, newest, notice, openId, openRoom, rooms, say, session } from "./rooms.js";
import { confirmed, type Session } from "./session.js";
import { words } from "./words.js";

export type Stage = "running" | "paused" | "posting" | "failed";

export interface Item {
  readonly key: number;
  readonly file: File;
  /** The folder in which it was dropped. */
  readonly folder: string;
  readonly room: ChatInfo;
  readonly stage: Stage;
  readonly progress: Progress | undefined;
  /** The tiny picture that goes with the message, once it is made. */
  readonly preview: Uint8Array | undefined;
  readonly error: string | undefined;
  /** More storage would help. */
  readonly isFull: boolean;
  /** The network would, once it answers again. */
  readonly isCutOff: boolean;
}

export const items = signal<readonly Item[]>([]);
/** Uploads of earlier visits, and of other devices, whose files are to be chosen again. */
export const unfinished = signal<readonly OpenUpload[]>([]);
/** Bytes of the allowance that they hold. */
export const heldBytes = computed(() => unfinished.value.reduce((sum, { bytesReserved }) => sum + bytesReserved, 0));

const running = new Map<number, Upload>();
let lastKey = 0;
/** What has been sent since nothing was on its way. */
const sent = signal({ count: 0, bytes: 0 });

/**
 * What is on its way, together with what went before it without a break. In bytes; `bytesLeft` is of what runs, and what
 * is paused or has failed is not waited for.
 */
export const batch = computed(() => {
  let { count, bytes: bytesDone } = sent.value;
  let bytesTotal = bytesDone;
  let bytesLeft = 0;
  for (const { file, progress, stage } of items.value) {
    count++;
    bytesTotal += file.size;
    const isIn = stage === "posting";
    const isHashed = progress !== undefined && progress.phase !== "hashing";
    const done = isIn ? file.size : isHashed ? progress.bytesDone : 0;
    bytesDone += done;
    if (stage === "running") bytesLeft += file.size - done;
  }
  return { count, bytesDone, bytesTotal, bytesLeft };
});

function change(key: number, what: Partial<Item>): void {
  items.value = items.value.map((item) => (item.key === key ? { ...item, ...what } : item));
}

/** How often progress is shown: a thousand files tell of theirs all the time. */
const TELL_MS = 100;
let news = new Map<number, Progress>();

function tell(key: number, progress: Progress): void {
  if (news.size === 0) setTimeout(show, TELL_MS);
  news.set(key, progress);
}

function show(): void {
  const now = news;
  news = new Map();
  items.value = items.value.map((item) => {
    const progress = now.get(item.key);
    return progress ? { ...item, progress } : item;
  });
}

// What is on its way is lost with the page, though not what has been sent: the browser asks first.
addEventListener("beforeunload", (event) => {
  if (items.value.some(({ stage }) => stage !== "failed")) event.preventDefault();
});

function remove(key: number): void {
  running.delete(key);
  items.value = items.value.filter((item) => item.key !== key);
  if (items.value.length === 0) sent.value = { count: 0, bytes: 0 };
}

/** Sends files to the open room, all at once: the library keeps the pace. */
export function sendFiles(files: Iterable<Dropped>): void {
  const room = openRoom();
  if (!room) return void (notice.value = { text: words.pickRoom, isError: true });
  for (const { file, folder } of files) start(file, room, folder);
}

function start(file: File, room: ChatInfo, folder = ""): void {
  const item: Item = { key: ++lastKey, file, folder, room, stage: "running", progress: undefined, preview: undefined, error: undefined, isFull: false, isCutOff: false };
  items.value = [...items.value, item];
  void run(item);
}

async function run({ key, file, folder, room }: Item): Promise<void> {
  const current = session.value;
  if (!current) return;
  const { storage } = current;
  try {
    let isHeld = false;
    const onProgress = (progress: Progress) => {
      tell(key, progress);
      isHeld ||= hold(running.get(key));
    };
    const upload = storage.upload(file, { accessorIds: [room.accessor_id], onProgress });
    running.set(key, upload);
    const shown = previewOf(file);
    void shown.then((preview) => change(key, { preview }));
    const [reference, preview] = await Promise.all([upload.done, shown]);
    running.delete(key);
    tellOthers();
    change(key, { stage: "posting" });
    // Whoever has sent a picture, sound or film does not load it to see it. Nobody waits for a slow cache.
    if (kindOf(reference.mimeType)) void storage.keep(reference, file).catch(() => {});
    const message = {
      chat_id: room.chat_id,
      text: folder,
      blob: [referenceToCandid(reference)] as [ReturnType<typeof referenceToCandid>],
      name: [file.name] as [string],
      preview: (preview ? [preview] : []) as [] | [Uint8Array],
    };
    await postOnce(current, message);
    // The message takes the place of what was on its way.
    await refreshed(current).catch(() => {});
    sent.value = { count: sent.value.count + 1, bytes: sent.value.bytes + file.size };
    const isLast = items.value.length === 1;
    if (isLast && sent.value.count > 1) say(words.allSent(sent.value.count));
    remove(key);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") return remove(key);
    const code = isOpenStorageError(error) ? error.code : undefined;
    const isFull = code === "AllowanceExceeded";
    const isCutOff = code === "GaveUp" || !(code || error instanceof Refused);
    change(key, { stage: "failed", error: explain(error), isFull, isCutOff });
    // What the side shows is older than this refusal.
    if (isFull) await Promise.all([loadAllowance(current), loadUnfinished(current)]).catch(() => {});
  }
}

/** How long what is posted waits for others, to be asked for together with them. */
const TOGETHER_MS = 100;
let refreshing: Promise<void> | undefined;

/** Resolves once the open room and the allowance have been asked for anew. */
function refreshed(current: Session): Promise<void> {
  refreshing ??= new Promise((resolve) => setTimeout(resolve, TOGETHER_MS)).then(async () => {
    refreshing = undefined;
    await Promise.all([loadNewest(current, false), loadAllowance(current)]);
  });
  return refreshing;
}

/** Posts a message; the chat may have to ask the index about a new bucket first. */
export function post({ chat }: Session, message: Parameters<Session["chat"]["send_message"]>[0]): Promise<true> {
  return patiently(async () => {
    try {
      ok(await chat.send_message(message));
      return true;
    } catch (error) {
      if (error instanceof Refused && "Retry" in error.refusal) return undefined;
      throw error;
    }
  });
}

/** Tries to post what is uploaded, the second after a second, the third after two more. */
const POST_TRIES = 4;

/**
 * Posts a message over a network that loses answers: what may be there already is looked for before it is
 * posted again.
 */
export async function postOnce(current: Session, message: Parameters<typeof post>[1]): Promise<void> {
  const isOpen = openId.value === message.chat_id;
  const after = (isOpen && messages.value.at(-1)?.message_id) || 0n;
  for (let tries = 1; ; tries++) {
    try {
      await post(current, message);
      return;
    } catch (error) {
      if (error instanceof Refused || tries === POST_TRIES) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, tries * 1000));
    if (await isPosted(current, message, after).catch(() => false)) return;
  }
}

async function isPosted({ chat, me }: Session, { chat_id, text, blob }: Parameters<typeof post>[1], after: bigint): Promise<boolean> {
  const idOf = (bytes: Uint8Array | number[] | undefined) => bytes && String(Uint8Array.from(bytes));
  const isSame = (other: Message) =>
    other.message_id > after &&
    other.sender.toText() === me &&
    other.text === text &&
    idOf(other.blob[0]?.reference.blob_id) === idOf(blob[0]?.blob_id);
  return (await newest(chat, chat_id)).some(isSame);
}

export function pause(key: number): void {
  running.get(key)?.pause();
  change(key, { stage: "paused" });
}

export function resume(key: number): void {
  running.get(key)?.resume();
  change(key, { stage: "running" });
}

/** Stops an upload, or gives up one that has failed, and gives back what was sent. */
export async function cancel(key: number): Promise<void> {
  const upload = running.get(key);
  remove(key);
  upload?.done.catch(() => {});
  await attempt(async (current) => {
    await upload?.abort();
    tellOthers();
    await loadAllowance(current);
  });
}

function ofStage(stage: Stage): readonly Item[] {
  return items.value.filter((item) => item.stage === stage);
}

export function pauseAll(): void {
  for (const { key } of ofStage("running")) pause(key);
}

export function resumeAll(): void {
  for (const { key } of ofStage("paused")) resume(key);
}

export function retryAll(): void {
  for (const item of ofStage("failed")) retry(item);
}

export async function cancelAll(): Promise<void> {
  // What is being posted is stored, and seen a moment later.
  await Promise.all(items.value.filter(({ stage }) => stage !== "posting").map(({ key }) => cancel(key)));
}

export function retry(item: Item): void {
  change(item.key, { stage: "running", error: undefined, progress: undefined, isFull: false, isCutOff: false });
  void run(item);
}

// Whoever comes back into the network's reach need not ask for it.
isAnswering.subscribe((answers) => {
  if (answers) for (const item of items.peek()) if (item.isCutOff) retry(item);
});

const lockOf = (blobId: string) => `openstorage upload ${blobId}`;

/** Tells the browser's other pages that this upload runs, until it ends or the page does. False before it is hashed. */
function hold(upload: Upload | undefined): boolean {
  if (upload?.blobId === undefined) return false;
  // The user has chosen its file again, there or anywhere else.
  unfinished.value = unfinished.value.filter(({ blobId }) => blobId !== upload.blobId);
  // Browsers have locks on secure pages only.
  void navigator.locks?.request(lockOf(upload.blobId), { mode: "shared" }, () => upload.done.catch(() => {}));
  return true;
}

/** What runs on another page of this browser is not unfinished. */
export async function loadUnfinished({ storage }: Session): Promise<void> {
  // What a bucket that does not answer holds is listed another time.
  const [uploads, locks] = await Promise.all([storage.uploads({ onUnreachable: () => {} }), navigator.locks?.query()]);
  const held = new Set(locks?.held?.map(({ name }) => name));
  unfinished.value = uploads.filter(({ blobId }) => !held.has(lockOf(blobId)));
}

/** The browser's other pages look anew for what is unfinished where one has ended. */
const others = new BroadcastChannel("openstorage uploads");
others.onmessage = () => unfinished.peek().length > 0 && lookAgain();
document.addEventListener("visibilitychange", lookAgain);

function tellOthers(): void {
  others.postMessage(null);
}

function lookAgain(): void {
  const current = session.peek();
  if (current && document.visibilityState === "visible") void loadUnfinished(current).catch(() => {});
}

/** Goes on with an upload of an earlier visit. Another file is refused: its bytes are not wanted. */
export function goOn({ blobId: id, size, record }: OpenUpload, file: File): void {
  if (file.size !== size || (record?.name !== undefined && file.name !== record.name)) {
    notice.value = { text: words.notThatFile(record?.name ?? words.file), isError: true };
    return;
  }
  const room = rooms.value.find(({ accessor_id }) => record?.accessorIds.includes(accessor_id.toText())) ?? openRoom();
  if (!room) return void (notice.value = { text: words.pickRoom, isError: true });
  unfinished.value = unfinished.value.filter(({ blobId }) => blobId !== id);
  start(file, room);
}

export function discard(upload: OpenUpload): Promise<void> {
  unfinished.value = unfinished.value.filter(({ blobId }) => blobId !== upload.blobId);
  return attempt(async (current) => {
    await current.storage.discardUpload(upload);
    tellOthers();
    await loadAllowance(current);
  });
}

/** Ten times the storage; then what did not fit is tried again. */
export function goPremium(): Promise<void> {
  return attempt(async (current) => {
    ok(await current.chat.set_premium(true));
    await confirmed(current.chat);
    await loadAllowance(current);
    if (allowance.value?.isFixed) notice.value = { text: words.fixedLimit, isError: true };
    for (const item of items.value) if (item.isFull) retry(item);
  });
}
