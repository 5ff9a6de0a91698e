/** The user, the chat and the storage of this page. */

import { Actor, HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { OpenStorage } from "@openstorage/client";
import { type _SERVICE as Chat, idlFactory } from "@openstorage/client/candid/chat";

const { VITE_INDEX, VITE_CHAT } = import.meta.env as Record<string, string>;

/** An identity for development; on mainnet use Internet Identity. */
function developmentIdentity(): Ed25519KeyIdentity {
  const kept = localStorage.getItem("identity");
  if (kept) return Ed25519KeyIdentity.fromJSON(kept);
  const identity = Ed25519KeyIdentity.generate();
  localStorage.setItem("identity", JSON.stringify(identity.toJSON()));
  return identity;
}

export function ok<T, E extends object>(answer: { Ok: T } | { Err: E }): T {
  if ("Ok" in answer) return answer.Ok;
  throw new Error(`the chat answers ${Object.keys(answer.Err)[0]}`);
}

export async function connect() {
  const identity = developmentIdentity();
  const agent = await HttpAgent.create({ host: location.origin, identity, shouldFetchRootKey: true });
  const chat = Actor.createActor<Chat>(idlFactory, { agent, canisterId: VITE_CHAT ?? "" });
  const storage = new OpenStorage({ agent, indexCanisterId: VITE_INDEX ?? "" });
  ok(await chat.register());
  while (!ok(await chat.me()).confirmed) await new Promise((resolve) => setTimeout(resolve, 200));
  const [known] = await chat.chats();
  const room = known ?? ok(await chat.create_chat({ name: "example" }));
  return { chat, storage, room };
}

export type Connection = Awaited<ReturnType<typeof connect>>;
