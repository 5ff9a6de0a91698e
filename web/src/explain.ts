/** What went wrong, in a sentence that says what to do. */

import { isOpenStorageError } from "@openstorage/client";
import type { ChatError } from "@openstorage/client/candid/chat";

import { bytesText, secondsText } from "./format.js";
import { errors } from "./words.js";

/** The chat's refusal. */
export class Refused extends Error {
  constructor(readonly refusal: ChatError) {
    super(refusalText(refusal));
  }
}

type Answer<T> = { Ok: T } | { Err: ChatError };

/** What the chat answers. @throws {@link Refused} */
export function ok<T>(answer: Answer<T>): T {
  if ("Ok" in answer) return answer.Ok;
  throw new Refused(answer.Err);
}

/** The room is gone, or the user is in it no more. */
export function isGone(error: unknown): boolean {
  return error instanceof Refused && ["ChatDeleted", "ChatNotFound", "NotMember"].some((name) => name in error.refusal);
}

function refusalText(refusal: ChatError): string {
  const [name, fields] = Object.entries(refusal)[0] as [keyof typeof errors, { max?: number | bigint; ms?: bigint } | null];
  if (name === "TooOften") return errors.TooOften(secondsText(Number(fields?.ms ?? 0) / 1000));
  if (name === "TooManyMessages") return errors.TooManyMessages(bytesText(Number(fields?.max ?? 0)));
  const text = errors[name] as string | ((max: number) => string) | undefined;
  return typeof text === "function" ? text(Number(fields?.max ?? 0)) : (text ?? name);
}

/** The network has answered, and has not taken the call. */
function isRejection(error: unknown): boolean {
  return error instanceof Error && /\breject/i.test(error.message);
}

export function explain(error: unknown): string {
  if (error instanceof Refused) return error.message;
  if (!isOpenStorageError(error)) return isRejection(error) ? errors.CallFailed : errors.network;
  if (error.code === "AllowanceExceeded") {
    const { byteLimit, bytesUsed, bytesReserved = 0 } = error.fields;
    const limit = bytesText(byteLimit);
    if (bytesUsed !== undefined && bytesReserved > 0) return errors.AllowanceHeld(limit, bytesText(bytesUsed), bytesText(bytesReserved));
    return bytesUsed === undefined ? errors.LargerThanAllowance(limit) : errors.AllowanceExceeded(limit, bytesText(bytesUsed));
  }
  if (error.code === "BlobTooLarge") return errors.BlobTooLarge(bytesText(error.fields.max));
  const text = (errors as Record<string, unknown>)[error.code];
  if (typeof text === "function") return String(text((error.fields as { max?: number }).max));
  return typeof text === "string" ? text : `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`;
}
