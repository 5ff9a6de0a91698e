import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { IDL } from "@icp-sdk/core/candid";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { Principal } from "@icp-sdk/core/principal";
import { type FileChange, MemoryResumeStore, OpenStorage, type StorageEvent, type Transport } from "@openstorage/client";
import { type FeedPage, idlFactory } from "@openstorage/client/candid/index";

import { Network } from "./network.js";
import { failure, pattern } from "./support.js";

let network: Network;
before(async () => {
  network = await Network.start();
});
after(() => network.stop());

async function take(events: AsyncIterable<StorageEvent>, count = Number.POSITIVE_INFINITY): Promise<StorageEvent[]> {
  const taken: StorageEvent[] = [];
  for await (const event of events) {
    if (taken.push(event) === count) break;
  }
  return taken;
}

test("what happens to a user's files is told in order, as it happens, and from where the app had been", { timeout: 60_000 }, async () => {
  const { user, accessorId } = await network.userWithChat();
  const other = await network.userWithChat();
  const storage = await user.storage();
  const told = take(storage.events({ pollMs: 100 }), 4);
  const data = pattern(1_000);
  const reference = await storage.upload(data, { accessorIds: [accessorId] }).done;
  await storage.upload(data, { accessorIds: [other.accessorId] }).done;
  // Somebody else's file is nobody's business.
  await (await other.user.storage()).upload(pattern(1_001), { accessorIds: [other.accessorId] }).done;
  await storage.delete(reference, { accessorId });
  await storage.delete(reference, { accessorId: other.accessorId });

  const events = (await told) as FileChange[];
  const owner = user.identity.getPrincipal().toText();
  const { blobId, bucket, size } = reference;
  const common = { blobId, bucket, size, owner };
  assert.deepEqual(
    events.map(({ id: _, atMs: __, ...event }) => event),
    [
      { what: "added", ...common, accessorId },
      { what: "referenced", ...common, accessorId: other.accessorId },
      { what: "unreferenced", ...common, accessorId },
      { what: "deleted", ...common, accessorId: other.accessorId },
    ],
  );
  assert.ok(events.every(({ atMs }) => Math.abs(atMs - Date.now()) < 300_000));
  const rest = await take(storage.events({ after: events[1]!.id, follow: false }));
  assert.deepEqual(rest, events.slice(2));
});

test("another's files are shown to nobody else, and an abort ends the loop", async () => {
  const user = await network.user();
  const storage = await user.storage();
  const owner = (await network.user()).identity.getPrincipal();
  await assert.rejects(storage.events({ owner }).next(), failure("NotAuthorized", {}));
  const controller = new AbortController();
  const next = storage.events({ signal: controller.signal }).next();
  controller.abort(new Error("enough"));
  await assert.rejects(next, /enough/);
  assert.throws(() => storage.events({ pollMs: 0 }), failure("InvalidOption", { option: "pollMs" }));
});

/** An index that answers with these pages, one after another. */
function indexOf(pages: FeedPage[], asked: bigint[]): OpenStorage {
  const { argTypes, retTypes } = new Map(idlFactory({ IDL })._fields).get("events")!;
  const transport: Transport = {
    principal: async () => Ed25519KeyIdentity.generate().getPrincipal(),
    async query(_canister, _method, arg) {
      asked.push((IDL.decode(argTypes, arg)[0] as unknown as { after: bigint }).after);
      return IDL.encode(retTypes, [{ Ok: pages.shift() }]);
    },
    update: () => Promise.reject(new Error("nothing is changed")),
  };
  return new OpenStorage({ transport, indexCanisterId: "aaaaa-aa", cache: false, resumeStore: new MemoryResumeStore() });
}

test("who has been away too long is told that something may be missing, once", async () => {
  const someone = Principal.fromText("aaaaa-aa");
  const change = (id: bigint) => ({
    id, at_ms: 5n, what: { Added: null }, blob_id: new Uint8Array(32), size: 3n, bucket: someone, owner: someone, accessor_id: someone,
  });
  const page = (ids: bigint[], forgotten_until: bigint) => ({ changes: ids.map(change), forgotten_until });
  const asked: bigint[] = [];
  const thousand = Array.from({ length: 1_000 }, (_, i) => 101n + BigInt(i));
  const storage = indexOf([page(thousand, 100n), page([2_000n], 100n), page([], 3_000n), page([4_000n], 3_000n)], asked);
  const told = await take(storage.events({ after: 7n, pollMs: 100 }), 1_003);
  assert.deepEqual(told[0], { what: "missed", id: 100n });
  assert.deepEqual(told.slice(-2).map(({ what, id }) => ({ what, id })), [{ what: "added", id: 2_000n }, { what: "added", id: 4_000n }]);
  assert.deepEqual(asked, [7n, 1_100n, 2_000n, 2_000n]);

  const fresh = indexOf([page([9n], 8n)], []);
  const all = await take(fresh.events({ follow: false }));
  assert.deepEqual(all.map(({ what }) => what), ["added"]);
});
