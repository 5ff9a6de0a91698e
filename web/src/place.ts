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
}

/** The canisters, as the chat names them. */
export async function env(): Promise<Env> {
  const answer = await fetch("/env.json");
  if (!answer.ok) throw new Error(`/env.json: ${answer.status}`);
  return (await answer.json()) as Env;
}
