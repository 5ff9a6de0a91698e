/** What a test's page has: the library, on `window.kit`, for one user. */

import { HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { OpenStorage } from "@openstorage/client";
import { type GetToken, useStorage } from "@openstorage/client/elements";

let storage: OpenStorage | undefined;

function opened(): OpenStorage {
  if (!storage) throw new Error("the kit has not been opened");
  return storage;
}

const kit = {
  /** Makes the page that of a user; the identity is JSON. */
  async open(index: string, identity: string): Promise<void> {
    const user = Ed25519KeyIdentity.fromJSON(identity);
    const agent = await HttpAgent.create({ host: location.origin, identity: user, shouldFetchRootKey: true });
    storage = new OpenStorage({ agent, indexCanisterId: index });
  },

  /** Lets the elements of the page show what the user may see. */
  show(getToken: GetToken): void {
    useStorage(opened(), getToken);
  },

  /** Hashes the file that was chosen in an input, out of the page's way. */
  async hash(input: string): Promise<string> {
    const file = document.querySelector<HTMLInputElement>(input)?.files?.[0];
    if (!file) throw new Error("no file was chosen");
    return (await opened().estimate(file)).blobId;
  },
};
export type Kit = typeof kit;

declare global {
  interface Window {
    kit: Kit;
  }
}

window.kit = kit;
