// The JavaScript agent against the local network, with all of its verification on.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { AnonymousIdentity, CanisterStatus, Expiry, HttpAgent } from "@icp-sdk/core/agent";
import {
  DelegationChain,
  DelegationIdentity,
  ECDSAKeyIdentity,
  Ed25519KeyIdentity,
} from "@icp-sdk/core/identity";
import { Secp256k1KeyIdentity } from "@icp-sdk/core/identity/secp256k1";
import { Principal } from "@icp-sdk/core/principal";

import { agent, canister, install, start } from "../network.js";

let network;
let id;

before(async () => {
  network = await start();
  id = await install(await agent(network.gateway, new AnonymousIdentity()), network.topology);
});

after(() => network?.stop());

async function delegated() {
  const [from, to] = [Ed25519KeyIdentity.generate(), Ed25519KeyIdentity.generate()];
  const until = new Date(Date.now() + 3_600_000);
  const chain = await DelegationChain.create(from, to.getPublicKey(), until);
  return DelegationIdentity.fromDelegation(to, chain);
}

test("all kinds of identities call and query", async () => {
  for (const identity of [
    new AnonymousIdentity(),
    Ed25519KeyIdentity.generate(),
    Secp256k1KeyIdentity.generate(),
    await ECDSAKeyIdentity.generate(),
    await delegated(),
  ]) {
    const actor = canister(await agent(network.gateway, identity), id);
    const expected = identity.getPrincipal().toText();
    assert.equal((await actor.caller()).toText(), expected);
    assert.equal((await actor.caller_of_update()).toText(), expected);
  }
});

test("what a canister is can be read, and what it is not is proven absent", async () => {
  const reader = await agent(network.gateway, new AnonymousIdentity());
  const paths = ["controllers", "module_hash", "time", "candid"];
  const status = await CanisterStatus.request({
    agent: reader,
    canisterId: id,
    paths,
    disableCertificateTimeVerification: false,
  });
  assert.deepEqual(
    status.get("controllers").map((it) => it.toText()),
    [Principal.anonymous().toText()],
  );
  assert.match(status.get("module_hash"), /^[0-9a-f]{64}$/);
  assert.ok(Math.abs(status.get("time").getTime() - Date.now()) < 60_000);
  assert.equal(status.get("candid"), null);
});

test("a reject is certified and tells its code", async () => {
  const actor = canister(await agent(network.gateway, Ed25519KeyIdentity.generate()), id);
  await assert.rejects(actor.no(), /IC0406/);
});

test("nothing is believed under another root key", async () => {
  const identity = Ed25519KeyIdentity.generate();
  // It believes in the mainnet's root key.
  const stranger = await HttpAgent.create({ host: network.gateway, identity, retryTimes: 0 });
  const actor = canister(stranger, id);
  await assert.rejects(actor.caller_of_update(), /verif/i);
  await assert.rejects(actor.caller(), /verif/i);
});

/** A server in the middle that changes one bit of every answer that names somebody. */
async function tamper(target, named) {
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const relayed = await fetch(target + request.url, {
      method: request.method,
      headers: { "content-type": request.headers["content-type"] ?? "text/plain" },
      body: chunks.length > 0 ? Buffer.concat(chunks) : undefined,
    });
    const body = Buffer.from(await relayed.arrayBuffer());
    const at = body.indexOf(named);
    if (at >= 0) body[at] ^= 1;
    response.writeHead(relayed.status, { "content-type": "application/cbor" });
    response.end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}

test("a changed answer is not believed", async () => {
  const identity = Ed25519KeyIdentity.generate();
  const proxy = await tamper(network.gateway, identity.getPrincipal().toUint8Array());
  try {
    const actor = canister(await agent(proxy.url, identity), id);
    await assert.rejects(actor.caller_of_update(), /verif/i);
    await assert.rejects(actor.caller(), /verif/i);
    assert.equal(typeof (await actor.count()), "number");
  } finally {
    proxy.stop();
  }
});

test("a message that comes again is not executed again", async () => {
  const identity = Ed25519KeyIdentity.generate();
  const sender = await agent(network.gateway, identity);
  let sent;
  const recorder = await HttpAgent.create({
    host: network.gateway,
    identity,
    rootKey: sender.rootKey,
    fetch: async (url, init) => {
      if (String(url).endsWith("/call")) sent = { url, init };
      return fetch(url, init);
    },
  });
  const actor = canister(recorder, id);
  const count = await actor.bump();
  for (let again = 0; again < 3; again++) {
    const response = await fetch(sent.url, sent.init);
    assert.equal(response.status, 200);
  }
  assert.equal(await actor.count(), count);
});

test("an expired call is refused", async () => {
  const identity = Ed25519KeyIdentity.generate();
  const sender = await HttpAgent.create({
    host: network.gateway,
    identity,
    shouldFetchRootKey: true,
    retryTimes: 0,
  });
  const before = await canister(sender, id).count();
  sender.addTransform("update", async (request) => {
    request.body.ingress_expiry = Expiry.fromDeltaInMilliseconds(-2_000);
    return request;
  });
  await assert.rejects(
    sender.call(id, { methodName: "bump", arg: new Uint8Array([68, 73, 68, 76, 0, 0]), effectiveCanisterId: id }),
    /expiry/i,
  );
  assert.equal(await canister(sender, id).count(), before);
});
