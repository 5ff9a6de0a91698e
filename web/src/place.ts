/** Where the page runs: on this machine or on the Internet Computer, and with which canisters. */

const { hostname, origin, port, protocol } = location;

/** A network for development. Everything else is the Internet Computer, under whatever name. */
export const isLocal = /(^|\.)localhost$|^127\.|^\[::1\]$/.test(hostname);

/** Where calls go: a local network takes them on the page's own origin. */
export const host = isLocal ? origin : "https://icp-api.io";

/** Below which host buckets serve blobs. */
export const gateway = isLocal ? `${protocol}//localhost${port && `:${port}`}` : "https://icp0.io";

export interface Env {
  readonly index: string;
  readonly chat: string;
  /** Where else the page is served. */
  readonly origins: readonly string[];
}

let asking: Promise<Env> | undefined;

/** The canisters, as the chat names them. */
export function env(): Promise<Env> {
  asking ??= ask();
  asking.catch(() => (asking = undefined));
  return asking;
}

async function ask(): Promise<Env> {
  const answer = await fetch("/env.json");
  if (!answer.ok) throw new Error(`/env.json: ${answer.status}`);
  return (await answer.json()) as Env;
}

/**
 * The origin by which Internet Identity knows the page's users, where that is another one: at a domain of its own the
 * same person is the same user as at the canister's.
 */
export async function derivationOrigin(): Promise<string | undefined> {
  const { chat, origins } = await env();
  return origins.includes(origin) ? `https://${chat}.icp0.io` : undefined;
}

/** A room as an address names it, with the invitation that lets somebody in. */
export interface Invite {
  readonly id: bigint;
  readonly invite: string | undefined;
}

const NUMBER_MAX = 2n ** 64n - 1n;
const ROOM = /#\/room\/(\d{1,20})(?:\/([0-9a-f]{32}))?$/;

/** The room that an address, or its last part, names. */
export function placeIn(address: string): Invite | undefined {
  const found = ROOM.exec(address.trim());
  const id = BigInt(found?.[1] ?? -1);
  return id >= 0n && id <= NUMBER_MAX ? { id, invite: found?.[2] } : undefined;
}

export function roomHash(id: bigint): string {
  return `#/room/${id}`;
}

/** An address that lets whoever opens it into the room. */
export function inviteLink({ chat_id, invite }: { readonly chat_id: bigint; readonly invite: string }): string {
  return `${origin}/${roomHash(chat_id)}/${invite}`;
}
