import assert from "node:assert/strict";
import { test } from "node:test";

import { Patience, sleep } from "../src/retry.js";
import { failure } from "./support.js";

test("patience ends and tells the last answer", async () => {
  const patience = new Patience(0);
  await assert.rejects(patience.pause("busy", undefined), failure("GaveUp", { seconds: 0, last: "busy" }));
});

test("a canister that asks for ages is asked again when patience ends", async () => {
  const patience = new Patience(150);
  const began = performance.now();
  await patience.pause("busy", undefined, Number.MAX_SAFE_INTEGER);
  await assert.rejects(patience.pause("busy", undefined), { code: "GaveUp" });
  assert.ok(performance.now() - began < 5 * 150);
});

test("progress renews patience", async () => {
  const patience = new Patience(120);
  for (let round = 0; round < 3; round++) {
    await patience.pause("busy", undefined);
    patience.renew();
  }
});

test("patience begins with the first thing that goes wrong, however long it took to", async () => {
  const patience = new Patience(100);
  await sleep(200);
  await patience.pause("lost", undefined);
  await assert.rejects(patience.pause("lost", undefined), { code: "GaveUp" });
});

test("waiting for a turn takes no patience", async () => {
  const patience = new Patience(1_000);
  await patience.pause("lost", undefined);
  await patience.free(() => sleep(1_100));
  await patience.pause("lost", undefined);
});

test("an abort ends a wait", async () => {
  const controller = new AbortController();
  const waiting = sleep(60_000, controller.signal);
  controller.abort();
  await assert.rejects(waiting, { name: "AbortError" });
  await assert.rejects(sleep(60_000, controller.signal), { name: "AbortError" });
});
