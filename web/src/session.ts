/** One signed-in user: the chat's calls, and the storage. */

import { Actor, type ActorSubclass, HttpAgent, type HttpAgentOptions, type SignIdentity } from "@icp-sdk/core/agent";
import { OpenStorage } from "@openstorage/client";
import { type _SERVICE as Chat, idlFactory } from "@openstorage/client/candid/chat";

import { ok } from "./explain.js";
import { signOut } from "./identity.js";
import { patiently } from "./patience.js";
import { env, gateway, host, isLocal } from "./place.js";

/** Resolves once the index has heard from the chat what the user may store. */
export function confirmed(chat: ActorSubclass<Chat>): Promise<true> {
  return patiently(async () => ok(await chat.me()).confirmed || undefined);
}

export interface Session {
  readonly me: string;
  readonly chat: ActorSubclass<Chat>;
  readonly storage: OpenStorage;
}

type NodeKeys = NonNullable<HttpAgentOptions["subnetNodeKeyExpirableStore"]>;

/** The keys by which the network signs, for as long as the page is open: in private windows nothing else is kept. */
function nodeKeys(): NodeKeys {
  const keys = new Map<string, Awaited<ReturnType<NodeKeys["get"]>>>();
  return {
    expirationTime: 3_600_000,
    get: async (subnet) => keys.get(subnet),
    set: async (subnet, known) => void keys.set(subnet, known),
    delete: async (subnet) => void keys.delete(subnet),
  };
}

/** Forgets what this browser keeps of the user: pictures and films that were loaded, and who it is. */
export async function leave(session: Session | undefined): Promise<void> {
  // What cannot be forgotten now is encrypted, and its key is of this browser.
  await session?.storage.clearCache().catch(() => {});
  await signOut();
}

/** Registers the user, and resolves once the index knows of it. */
export async function open(identity: SignIdentity, name: string): Promise<Session> {
  const { index, chat: canisterId } = await env();
  const agent = await HttpAgent.create({ host, identity, shouldFetchRootKey: isLocal, subnetNodeKeyExpirableStore: nodeKeys() });
  const chat = Actor.createActor<Chat>(idlFactory, { agent, canisterId });
  const me = identity.getPrincipal();
  const state = ok(await chat.register());
  const known = ok(await chat.profile(me));
  if (name && known.name[0] !== name) ok(await chat.set_name(name));
  if (!state.confirmed) await confirmed(chat);
  const storage = new OpenStorage({ agent, indexCanisterId: index, gateway });
  return { me: me.toText(), chat, storage };
}
