/** What a test's page has: the library, on `window.kit`, for one user. */

import { HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { OpenStorage } from "@openstorage/client";
import { type GetToken, useStorage } from "@openstorage/client/elements";

/** Lets the elements of the page show what the user may see. */
async function show(index: string, identity: string, getToken: GetToken): Promise<OpenStorage> {
  const user = Ed25519KeyIdentity.fromJSON(identity);
  const agent = await HttpAgent.create({ host: location.origin, identity: user, shouldFetchRootKey: true });
  const storage = new OpenStorage({ agent, indexCanisterId: index });
  useStorage(storage, getToken);
  return storage;
}

const kit = { show };
export type Kit = typeof kit;

declare global {
  interface Window {
    kit: Kit;
  }
}

window.kit = kit;
