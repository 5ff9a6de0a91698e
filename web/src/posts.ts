/** What is done with messages that are there: deleted, forwarded, saved. */

import { type BlobReference, referenceFromCandid, referenceToCandid } from "@openstorage/client";
import type { BlobAccess, ChatInfo, Message } from "@openstorage/client/candid/chat";

import { ok } from "./explain.js";
import { plainName } from "./format.js";
import { patiently } from "./patience.js";
import { attempt, loadAllowance, loadNewest, loadRooms, messages, openId, say } from "./rooms.js";
import { post } from "./uploads.js";
import { words } from "./words.js";

export interface Attachment {
  readonly reference: BlobReference;
  readonly accessorId: string;
  readonly token: string | undefined;
}

export function attachmentOf({ reference, accessor_id, token }: BlobAccess): Attachment {
  return { reference: referenceFromCandid(reference), accessorId: accessor_id.toText(), token: token[0] };
}

/** A token that opens what the open room shows; the chat gives one once it has the bucket's key. */
export function freshToken(reference: BlobReference): Promise<string> {
  const shows = ({ blob }: Message) => blob[0] !== undefined && referenceFromCandid(blob[0].reference).blobId === reference.blobId;
  return patiently(async () => {
    await attempt((current) => loadNewest(current));
    return messages.value.find(shows)?.blob[0]?.token[0];
  });
}

export function deleteMessage({ message_id }: Message): Promise<void> {
  const chat_id = openId.value;
  if (chat_id === undefined) return Promise.resolve();
  return attempt(async (current) => {
    const left = await patiently(async () => {
      const answer = ok(await current.chat.delete_message({ chat_id, message_id }));
      return "Retry" in answer ? undefined : answer;
    });
    if ("Delete" in left) {
      const { blob_id, bucket, accessor_id, owner, token } = left.Delete;
      const reference = referenceFromCandid({ blob_id, bucket, size: 0n, mime_type: "application/octet-stream" });
      await current.storage.delete(reference, { accessorId: accessor_id, owner, token });
    }
    await Promise.all([loadNewest(current), loadAllowance(current)]);
  });
}

export function forward(message: Message, to: ChatInfo): Promise<void> {
  return attempt(async (current) => {
    const access = message.blob[0];
    let blob: Parameters<typeof post>[1]["blob"] = [];
    if (access) {
      const { reference, accessorId, token } = attachmentOf(access);
      const options = { from: accessorId, token: token ?? (await freshToken(reference)), accessorIds: [to.accessor_id] };
      const name = message.name[0];
      const forwarded = await current.storage.forward(reference, name === undefined ? options : { ...options, name });
      blob = [referenceToCandid(forwarded)];
    }
    const { text, name, preview } = message;
    await post(current, { chat_id: to.chat_id, text, blob, name, preview });
    say(words.forwarded(to.name));
    await loadAllowance(current);
  });
}

/** Saves a file: downloaded and checked against its hash. */
export async function save({ reference, accessorId, token }: Attachment, name: string): Promise<void> {
  await attempt(async ({ storage }) => {
    const tokens = [token];
    const fresh = () => tokens.pop() ?? freshToken(reference);
    const blob = await storage.download(reference, { accessorId, token: fresh });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = plainName(name);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

export function deleteRoom({ chat_id }: ChatInfo): Promise<void> {
  return attempt(async (current) => {
    const left = await patiently(async () => {
      const answer = ok(await current.chat.delete_chat({ chat_id }));
      return "Delete" in answer ? answer.Delete : undefined;
    });
    await current.storage.deleteAccessor(left.chat_id, left.token);
    location.hash = "";
    await loadRooms(current);
  });
}

