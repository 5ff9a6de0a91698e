import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import { Pace, type Slot } from "../src/pace.js";

const CHUNK = 2_000_000;
const STEP_MS = 10;

interface Line {
  readonly bytesPerMs: number;
  /** From the last byte to the answer. */
  readonly latencyMs: number;
  readonly limitMax: number;
  readonly chunks: number;
  /**
   * What the sender hears of bytes that go out: each as the line takes it, nothing, or all at once, where buffers on the
   * way swallow a chunk.
   */
  readonly hears?: "each" | "nothing" | "all";
  /** Every so manieth chunk is lost. */
  readonly lostEvery?: number;
  /** A small file has gone over the line before. */
  readonly afterSmall?: boolean;
}

interface Run {
  readonly tookMs: number;
  /** Bytes that the line carried. */
  readonly carried: number;
  readonly mostInFlight: number;
  /** The limit after each answer. */
  readonly limits: readonly number[];
  /** The longest that a chunk that arrived was on its way. */
  readonly longestMs: number;
}

/** Chunks over a line that is shared equally by all that are on it, in virtual time. */
async function run(t: TestContext, { bytesPerMs, latencyMs, limitMax, chunks, hears = "each", lostEvery = 0, afterSmall = false }: Line): Promise<Run> {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  const pace = new Pace(limitMax, undefined, () => now);
  if (afterSmall) {
    const slot = await pace.slot(1);
    slot.done({ end: "arrived", bytes: 1 });
  }
  const flying = new Set<{ slot: Slot; startMs: number; left: number; answerMs: number }>();
  const limits: number[] = [];
  let [waiting, arrived, carried, mostInFlight, longestMs, ended] = [0, 0, 0, 0, 0, 0];
  const ask = () => {
    waiting++;
    void pace.slot(CHUNK).then((slot) => {
      waiting--;
      if (hears === "all") slot.sent(CHUNK);
      flying.add({ slot, startMs: now, left: CHUNK, answerMs: 0 });
      mostInFlight = Math.max(mostInFlight, flying.size);
    });
  };
  for (; arrived < chunks; now += STEP_MS) {
    // Somebody always waits, as an upload's loop does.
    if (waiting === 0 && flying.size + arrived < chunks) ask();
    // Promises settle.
    await new Promise((resolve) => setImmediate(resolve));
    t.mock.timers.tick(STEP_MS);
    const onLine = [...flying].filter(({ left }) => left > 0);
    for (const flight of onLine) {
      const part = Math.min(flight.left, (bytesPerMs * STEP_MS) / onLine.length);
      carried += part;
      flight.left -= part;
      if (hears === "each") flight.slot.sent(CHUNK - flight.left);
      if (flight.left <= 0) flight.answerMs = now + latencyMs;
    }
    for (const flight of [...flying]) {
      const { slot, left, answerMs, startMs } = flight;
      if (left > 0 || now < answerMs) {
        const verdict = now % 1_000 === 0 ? slot.verdict(0) : "wait";
        if (verdict === "wait") continue;
        slot.done({ end: verdict === "lost" ? "lost" : "other" });
      } else if (lostEvery > 0 && ended++ % lostEvery === lostEvery - 1) {
        slot.done({ end: "lost" });
      } else {
        arrived++;
        longestMs = Math.max(longestMs, now - startMs);
        slot.done({ end: "arrived", bytes: CHUNK });
      }
      flying.delete(flight);
      limits.push(pace.limit);
    }
    assert.ok(now < 7_200_000, `${arrived} of ${chunks} chunks in two hours`);
  }
  t.mock.timers.reset();
  return { tookMs: now, carried, mostInFlight, limits, longestMs };
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

for (const hears of ["each", "nothing", "all"] as const) {
  test(`60 MB over a fast line on which a call takes 2 s are one trip and what the line takes (hears ${hears})`, async (t) => {
    const { tookMs } = await run(t, { bytesPerMs: 20_000, latencyMs: 2_000, limitMax: 32, chunks: 30, hears });
    assert.ok(tookMs <= 1.1 * (2_000 + 3_000), `${tookMs} ms`);
  });

  test(`a small file before makes a large one no slower (hears ${hears})`, async (t) => {
    const { tookMs } = await run(t, { bytesPerMs: 20_000, latencyMs: 2_000, limitMax: 32, chunks: 30, hears, afterSmall: true });
    assert.ok(tookMs <= 1.1 * (2_000 + 3_000), `${tookMs} ms`);
  });

  test(`a long line is filled and stays so (hears ${hears})`, async (t) => {
    // Twenty chunks are on their way where the line is full.
    const { tookMs } = await run(t, { bytesPerMs: 20_000, latencyMs: 2_000, limitMax: 32, chunks: 600, hears });
    // Who hears nothing tries for a trip whether fewer do.
    assert.ok(tookMs <= (hears === "each" ? 1.1 : 1.15) * (2_000 + 60_000), `${tookMs} ms`);
  });

  test(`50 Mbit/s with 100 ms are filled by few chunks (hears ${hears})`, async (t) => {
    const { tookMs, mostInFlight, limits } = await run(t, { bytesPerMs: 6_250, latencyMs: 100, limitMax: 32, chunks: 300, hears });
    assert.ok(tookMs <= 1.05 * (100 + 96_000), `${tookMs} ms`);
    assert.ok(mean(limits.slice(-150)) <= 10, `${mean(limits.slice(-150))} chunks`);
    assert.ok(hears !== "each" || mostInFlight <= 8, `${mostInFlight} chunks at most`);
  });

  test(`a slow line is not crowded, and hardly a chunk goes twice (hears ${hears})`, async (t) => {
    // 2 MB take 4 s.
    const { carried, limits } = await run(t, { bytesPerMs: 500, latencyMs: 100, limitMax: 16, chunks: 100, hears });
    assert.ok(mean(limits.slice(-60)) <= 4, `${mean(limits.slice(-60))} chunks`);
    // Who hears nothing finds out when the first answer does not come.
    assert.ok(carried < 100 * CHUNK * (hears === "each" ? 1.01 : 1.1), `${carried / CHUNK} chunks were carried`);
  });

  test(`100 kbit/s carry a few chunks, each before its request expires (hears ${hears})`, async (t) => {
    const { longestMs, limits, carried } = await run(t, { bytesPerMs: 12.5, latencyMs: 100, limitMax: 32, chunks: 5, hears });
    assert.ok(longestMs < 240_000, `${longestMs} ms`);
    assert.equal(limits.at(-1), 1);
    assert.ok(carried < 1.4 * 5 * CHUNK, `${carried / CHUNK} chunks were carried`);
  });
}

test("losses halve the number, down to one, and never below", async (t) => {
  const { limits } = await run(t, { bytesPerMs: 20_000, latencyMs: 100, limitMax: 16, chunks: 400, lostEvery: 3 });
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

/** A pace with a clock of its own, and a slot for one chunk. */
async function flying(bytes: number) {
  const time = { now: 0 };
  const pace = new Pace(4, undefined, () => time.now);
  return { time, pace, slot: await pace.slot(bytes) };
}

test("a line of which nothing is known is given the time that 100 kbit/s need", async () => {
  const { time, slot } = await flying(CHUNK);
  time.now = 160_000;
  assert.equal(slot.verdict(0), "wait");
  time.now = 240_000;
  assert.equal(slot.verdict(0), "lost");
});

test("a small message is waited for a minute", async () => {
  const { time, slot } = await flying(100);
  time.now = 59_000;
  assert.equal(slot.verdict(0), "wait");
  time.now = 60_000;
  assert.equal(slot.verdict(0), "lost");
});

test("a stall is silence: bytes that go out are waited for, and what stands still is lost after 30 s", async () => {
  const { time, pace, slot } = await flying(CHUNK);
  slot.done({ end: "arrived", bytes: CHUNK });
  time.now = 100;
  const other = await pace.slot(CHUNK);
  for (let second = 1; second <= 200; second++) {
    time.now += 1_000;
    other.sent(second * 5_000);
    assert.equal(other.verdict(0), "wait");
  }
  time.now += 29_000;
  assert.equal(other.verdict(0), "wait");
  assert.equal(other.verdict(1), "wait");
  time.now += 1_000;
  assert.equal(other.verdict(0), "lost");
});

test("a chunk is waited for longer each time it is sent, within bounds", async () => {
  const { time, pace, slot } = await flying(CHUNK);
  time.now = 1_000;
  slot.done({ end: "arrived", bytes: CHUNK });
  assert.deepEqual([0, 1, 2, 3, 9].map((attempt) => pace.stallMs(attempt)), [30_000, 60_000, 120_000, 240_000, 300_000]);
});

test("large chunks are not judged by how fast small ones were", async () => {
  const { time, pace, slot } = await flying(100);
  time.now = 50;
  slot.done({ end: "arrived", bytes: 100 });
  assert.equal(pace.stallMs(0, 100), 30_000);
  assert.equal(pace.stallMs(0, CHUNK), 200_000);
});
