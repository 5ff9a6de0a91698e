/** Who the user is: a key of this browser on a local network, Internet Identity on mainnet. */

import type { SignIdentity } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";

import { derivationOrigin, isLocal } from "./place.js";

const KEY = "openstorage.identity";
const NAME = "openstorage.name";

export function keptName(): string {
  return localStorage.getItem(NAME) ?? "";
}

export function keepName(name: string): void {
  localStorage.setItem(NAME, name);
}

/** The identity of an earlier visit, where there is one that still counts. */
export async function keptIdentity(): Promise<SignIdentity | undefined> {
  if (isLocal) {
    const kept = localStorage.getItem(KEY);
    return kept && keptName() ? Ed25519KeyIdentity.fromJSON(kept) : undefined;
  }
  const client = await internetIdentity();
  return client.isAuthenticated() ? ((await client.getIdentity()) as SignIdentity) : undefined;
}

/**
 * Makes the sign-in ready. What it resolves with is to be called within a click: Internet Identity's window
 * opens in the click itself, or not at all.
 */
export async function signInReady(): Promise<() => Promise<SignIdentity>> {
  if (isLocal) return localIdentity;
  const client = await internetIdentity();
  return async () => (await client.signIn()) as SignIdentity;
}

async function localIdentity(): Promise<SignIdentity> {
  const kept = localStorage.getItem(KEY);
  if (kept) return Ed25519KeyIdentity.fromJSON(kept);
  const identity = Ed25519KeyIdentity.generate();
  localStorage.setItem(KEY, JSON.stringify(identity.toJSON()));
  return identity;
}

/** False once Internet Identity's delegation has ended, after eight hours. */
export async function isSignedIn(): Promise<boolean> {
  return isLocal || (await internetIdentity()).isAuthenticated();
}

/** Forgets the identity of this browser, on all its pages. A local key is gone for good. */
export async function signOut(): Promise<void> {
  localStorage.removeItem(NAME);
  localStorage.removeItem(KEY);
  if (!isLocal) await (await internetIdentity()).signOut();
}

// Another page of this browser has signed out.
addEventListener("storage", ({ key, newValue }) => {
  if (isLocal && key === KEY && newValue === null) location.reload();
});

let loading: Promise<InstanceType<(typeof import("@icp-sdk/auth/client"))["AuthClient"]>> | undefined;

/** Loaded only where it is needed. Idle users stay signed in: a page that uploads is idle for long. */
function internetIdentity() {
  loading ??= Promise.all([import("@icp-sdk/auth/client"), derivationOrigin()]).then(
    ([{ AuthClient }, origin]) => new AuthClient({ idleOptions: { disableIdle: true }, ...(origin && { derivationOrigin: origin }) }),
  );
  // Another time the network may answer.
  loading.catch(() => (loading = undefined));
  return loading;
}
