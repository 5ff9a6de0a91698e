/**
 * How the page signs a user in, which depends on where it is served: the deployed page, as the gateway serves
 * it, under the names that mainnet would serve it under. Internet Identity is played by a page of the test
 * that speaks its protocol (ICRC-29, ICRC-34); the calls that the signed-in page makes to the Internet Computer
 * go to the local network. Not reached here: Internet Identity itself, and answers certified by mainnet's key.
 */

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { DelegationChain, Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import type { BrowserContext, Route } from "playwright-core";

import { Network } from "../network.js";
import { launch } from "./page.js";

const PROVIDER = "https://id.ai/authorize";
const CALLS = "https://icp-api.io";
const HOUR_MS = 3_600_000;

/** A domain of its own, which the chat names. */
const OWN = "chat.example.org";
const network = await Network.start({ origins: [`https://${OWN}`] });
const browser = await launch();
after(async () => {
  await browser.close();
  await network.stop();
});

/** Lets the page be found at this origin. Node does not resolve names below localhost, so the canister is named. */
async function serveAt(context: BrowserContext, origin: string): Promise<void> {
  await context.route(`${origin}/**`, async (route) => {
    const { pathname } = new URL(route.request().url());
    const response = await route.fetch({ url: `${network.url}${pathname}?canisterId=${network.chat}` });
    await route.fulfill({ response });
  });
}

/**
 * What Internet Identity's window does, for a user who says yes; or who says nothing and closes it. Tells for which other
 * origin each delegation was asked.
 */
async function playProvider(context: BrowserContext, user: Ed25519KeyIdentity | undefined): Promise<(string | undefined)[]> {
  const asked: (string | undefined)[] = [];
  interface Params {
    readonly publicKey: string;
    readonly maxTimeToLive: string;
    readonly icrc95DerivationOrigin?: string;
  }
  await context.exposeFunction("delegate", async ({ publicKey, maxTimeToLive, icrc95DerivationOrigin }: Params) => {
    asked.push(icrc95DerivationOrigin);
    if (!user) throw new Error("nobody is there");
    const der = Buffer.from(publicKey, "base64");
    const key = { toDer: () => new Uint8Array(der), toRaw: () => new Uint8Array(), rawKey: new Uint8Array(), derKey: new Uint8Array(der) };
    const until = new Date(Date.now() + Number(BigInt(maxTimeToLive) / 1_000_000n));
    const { delegations } = await DelegationChain.create(user, key as never, until);
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
    const signerDelegation = delegations.map(({ delegation, signature }) => ({
      delegation: { pubkey: base64(delegation.pubkey), expiration: String(delegation.expiration) },
      signature: base64(signature),
    }));
    return { publicKey: base64(user.getPublicKey().toDer()), signerDelegation };
  });
  const script = `addEventListener("message", async ({ data, source, origin }) => {
    const answer = (result) => source.postMessage({ jsonrpc: "2.0", id: data.id, result }, origin);
    if (data.method === "icrc29_status") answer("ready");
    if (data.method === "icrc34_delegation") answer(await delegate(data.params));
  });`;
  await context.route("https://id.ai/**", (route) =>
    route.fulfill({ contentType: "text/html", body: `<!doctype html><script>${user ? script : ""}</script>` }),
  );
  return asked;
}

/** Brings calls to the local network, and tells of each: the bytes, and how it was answered. */
async function serveCalls(context: BrowserContext): Promise<{ body: Buffer; status: number }[]> {
  const calls: { body: Buffer; status: number }[] = [];
  await context.route(`${CALLS}/**`, async (route: Route) => {
    const request = route.request();
    const { pathname } = new URL(request.url());
    const response = await route.fetch({ url: `${network.url}${pathname}` });
    if (request.method() === "POST") calls.push({ body: request.postDataBuffer() ?? Buffer.alloc(0), status: response.status() });
    await route.fulfill({ response });
  });
  return calls;
}

test("on a local network a key of this browser is the identity", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://${network.chat}.localhost:${new URL(network.url).port}/`);
  await page.getByRole("button", { name: "Enter" }).waitFor();
  assert.equal(await page.getByRole("button", { name: /Internet Identity/ }).count(), 0);
  await context.close();
});

const canister = network.chat;
for (const host of [`${canister}.icp0.io`, `${canister}.ic0.app`, `${canister}.icp.net`, OWN]) {
  test(`at ${host.replace(canister, "the canister")} Internet Identity is asked, in a window that the click opens`, async () => {
    const context = await browser.newContext();
    const user = Ed25519KeyIdentity.generate();
    const origin = `https://${host}`;
    await serveAt(context, origin);
    const asked = await playProvider(context, user);
    const calls = await serveCalls(context);
    const page = await context.newPage();
    await page.goto(origin);
    await page.getByLabel("Your name").fill("Ada");
    const opening = context.waitForEvent("page");
    // By keyboard, which is the harder way to a window.
    await page.keyboard.press("Enter");
    const window = await opening;
    assert.equal(window.url(), PROVIDER);
    // The page goes on as that user: a delegation of the provider's key signs, and the network takes it.
    await page.waitForFunction(() => !document.querySelector('[name="name"]'));
    await page.getByRole("heading", { name: "The chat cannot be opened" }).waitFor();
    const sender = Buffer.from(user.getPrincipal().toUint8Array());
    const signed = calls.filter(({ body }) => body.includes(sender) && body.includes("sender_delegation"));
    assert.ok(signed.length > 0, "a call as the user");
    // At a domain of its own the user is the one that the canister's own origin gives.
    assert.deepEqual(asked, [host === OWN ? `https://${canister}.icp0.io` : undefined]);
    assert.ok(signed.every(({ status }) => status < 300), JSON.stringify(signed.map(({ status }) => status)));

    // A later visit needs no window.
    const later = await context.newPage();
    await later.goto(origin);
    await later.getByRole("heading", { name: "The chat cannot be opened" }).waitFor();
    const until = await later.evaluate(() => Number(localStorage.getItem("ic-delegation_expiration")) / 1e6 - Date.now());
    assert.ok(until > 7 * HOUR_MS && until < 9 * HOUR_MS, `signed in for ${until} ms`);
    // The page may still be asking for something.
    await context.unrouteAll({ behavior: "ignoreErrors" });
    await context.close();
  });
}

test("a window that is closed leaves the user where they were, told what to do", async () => {
  const context = await browser.newContext();
  const origin = `https://${network.chat}.icp0.io`;
  await serveAt(context, origin);
  await playProvider(context, undefined);
  const page = await context.newPage();
  // Windows that a page may not open are none: as a browser that blocks them does.
  await page.addInitScript(() => {
    window.open = () => null;
  });
  await page.goto(origin);
  await page.getByLabel("Your name").fill("Ada");
  await page.getByRole("button", { name: "Sign in with Internet Identity" }).click();
  await page.getByRole("alert").getByText("Allow windows for this page").waitFor();
  await page.getByLabel("Your name").waitFor();
  // The page may still be asking for something.
  await context.unrouteAll({ behavior: "ignoreErrors" });
  await context.close();
});
