import assert from "node:assert/strict";
import { test } from "node:test";

import { Pace, type Slot } from "../src/pace.js";

const CHUNK = 2_000_000;

/** A link on which `bytesPerMs` are shared by what is in flight, each trip with a latency of its own. */
async function run(
  { bytesPerMs, latencyMs, limitMax, chunks = 600, lostEvery = 0 }: { bytesPerMs: number; latencyMs: number; limitMax: number; chunks?: number; lostEvery?: number },
): Promise<{ pace: Pace; limits: number[] }> {
  let now = 0;
  const pace = new Pace(limitMax, undefined, () => now);
  const flying: { slot: Slot; endMs: number }[] = [];
  const limits: number[] = [];
  for (let sent = 0; sent < chunks || flying.length > 0; ) {
    while (sent < chunks && flying.length < pace.limit) {
      const slot = await pace.slot(CHUNK);
      sent++;
      const busyUntil = Math.max(now, ...flying.map(({ endMs }) => endMs - latencyMs));
      flying.push({ slot, endMs: busyUntil + CHUNK / bytesPerMs + latencyMs });
    }
    // Somebody always waits, as an upload's loop does.
    const waiting = sent < chunks ? pace.slot(CHUNK) : undefined;
    flying.sort((a, b) => a.endMs - b.endMs);
    const next = flying.shift()!;
    now = next.endMs;
    const isLost = lostEvery > 0 && limits.length % lostEvery === lostEvery - 1;
    next.slot.done(isLost ? { end: "lost" } : { end: "arrived", bytes: CHUNK });
    limits.push(pace.limit);
    if (waiting) {
      while (flying.length > 0 && flying.length >= pace.limit) {
        const other = flying.shift()!;
        now = other.endMs;
        other.slot.done({ end: "arrived", bytes: CHUNK });
      }
      const slot = await waiting;
      sent++;
      const busyUntil = Math.max(now, ...flying.map(({ endMs }) => endMs - latencyMs));
      flying.push({ slot, endMs: busyUntil + CHUNK / bytesPerMs + latencyMs });
    }
  }
  return { pace, limits };
}

test("a long thin line is filled by more chunks", async () => {
  // 2 MB take 100 ms, and 2 s more to be answered: some twenty chunks fill the line.
  const { pace } = await run({ bytesPerMs: 20_000, latencyMs: 2_000, limitMax: 16 });
  assert.ok(pace.limit >= 12, `${pace.limit} chunks`);
});

test("a slow line is not crowded", async () => {
  // 2 MB take 4 s: three chunks are as fast as sixteen.
  const { limits } = await run({ bytesPerMs: 500, latencyMs: 100, limitMax: 16 });
  const late = limits.slice(-300);
  const mean = late.reduce((sum, limit) => sum + limit, 0) / late.length;
  assert.ok(mean <= 6, `${mean} chunks`);
});

test("losses halve the number, down to one, and never below", async () => {
  const { limits } = await run({ bytesPerMs: 20_000, latencyMs: 100, limitMax: 16, lostEvery: 3 });
  assert.ok(Math.min(...limits) === 1 && limits.at(-1)! <= 4, limits.slice(-20).join());
});

test("chunks lost together count once", async () => {
  const pace = new Pace(16, undefined, () => 0);
  const slots = await Promise.all(Array.from({ length: 4 }, () => pace.slot(CHUNK)));
  let now = 0;
  const timed = new Pace(16, undefined, () => ++now);
  const together = await Promise.all(Array.from({ length: 4 }, () => timed.slot(CHUNK)));
  for (const slot of [...slots, ...together]) slot.done({ end: "lost" });
  assert.equal(timed.limit, 2);
});

test("slots are given in turn, and back once", async () => {
  const pace = new Pace(2);
  const first = await pace.slot(CHUNK);
  await pace.slot(CHUNK);
  const order: string[] = [];
  const waiters = ["a", "b"].map((name) => pace.slot(CHUNK).then((slot) => (order.push(name), slot)));
  first.done({ end: "other" });
  first.done({ end: "other" });
  const a = await waiters[0]!;
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(order, ["a"]);
  a.done({ end: "other" });
  await waiters[1];
  assert.deepEqual(order, ["a", "b"]);
});

test("bytes in flight are bounded too, in turn, and one chunk alone always goes", async () => {
  const pace = new Pace(8, 5_000_000);
  const order: string[] = [];
  const ask = (name: string, bytes: number) => pace.slot(bytes).then((slot) => (order.push(name), slot));
  const [large, second] = await Promise.all([ask("large", 2_000_000), ask("second", 2_000_000)]);
  const third = ask("third", 2_000_000);
  const small = ask("small", 1);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(order, ["large", "second"]);
  large.done({ end: "arrived", bytes: 2_000_000 });
  for (const slot of [second, await third, await small]) slot.done({ end: "other" });
  assert.deepEqual(order, ["large", "second", "third", "small"]);
  const huge = await ask("huge", 50_000_000);
  huge.done({ end: "other" });
});

test("whoever gives up leaves the queue", async () => {
  const pace = new Pace(1);
  const held = await pace.slot(CHUNK);
  const controller = new AbortController();
  const gone = pace.slot(CHUNK, controller.signal);
  const next = pace.slot(CHUNK);
  controller.abort();
  await assert.rejects(gone, { name: "AbortError" });
  held.done({ end: "other" });
  (await next).done({ end: "other" });
});

test("a chunk is waited for longer each time it is sent, within bounds", () => {
  const pace = new Pace(4);
  assert.deepEqual([0, 1, 2, 3, 9].map((attempt) => pace.stallMs(attempt)), [30_000, 60_000, 120_000, 240_000, 300_000]);
});
