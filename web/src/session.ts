/** One signed-in user: the chat's calls, and the storage. */

import { Actor, type ActorSubclass, HttpAgent, type SignIdentity } from "@icp-sdk/core/agent";
import { OpenStorage } from "@openstorage/client";
import { type _SERVICE as Chat, idlFactory } from "@openstorage/client/candid/chat";

import { ok } from "./explain.js";
import { env, gateway, host, isLocal } from "./place.js";

export interface Session {
  readonly me: string;
  readonly chat: ActorSubclass<Chat>;
  readonly storage: OpenStorage;
}

const WAIT_MS = 400;

/** Registers the user, and resolves once the index knows of it. */
export async function open(identity: SignIdentity, name: string): Promise<Session> {
  const { index, chat: canisterId } = await env();
  const agent = await HttpAgent.create({ host, identity, shouldFetchRootKey: isLocal });
  const chat = Actor.createActor<Chat>(idlFactory, { agent, canisterId });
  const me = identity.getPrincipal();
  let state = ok(await chat.register());
  const known = ok(await chat.profile(me));
  if (name && known.name[0] !== name) ok(await chat.set_name(name));
  while (!state.confirmed) {
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    state = ok(await chat.me());
  }
  const storage = new OpenStorage({ agent, indexCanisterId: index, gateway });
  return { me: me.toText(), chat, storage };
}
