import assert from "node:assert/strict";
import { test } from "node:test";

import { Clock } from "../src/clock.js";
import { Meter } from "../src/progress.js";

const MB = 1_000_000;

/** A meter with a clock of its own. */
function metered() {
  const time = { now: 0 };
  return { time, meter: new Meter(() => time.now) };
}

test("the rate falls while nothing moves, and the network is waited for", () => {
  const { time, meter } = metered();
  for (; time.now <= 20_000; time.now += 100) meter.read("uploading", time.now * 773, 100 * MB);
  const rateAfter = (ms: number) => {
    time.now = 20_000 + ms;
    return meter.now().bytesPerSecond;
  };
  assert.ok(Math.abs(rateAfter(0) - 773_000) < 10_000);
  assert.ok(rateAfter(2_500) < 0.6 * 773_000);
  assert.ok(rateAfter(6_000) < 0.05 * 773_000, `${rateAfter(6_000)} bytes a second`);
  assert.equal(meter.now().waiting, false);
  time.now = 30_100;
  assert.deepEqual([meter.now().waiting, Math.round(meter.now().bytesPerSecond / 773_000)], [true, 0]);
  assert.equal(meter.read("uploading", 21 * 773_000, 100 * MB).waiting, false);
});

test("of a network that has failed no rate is told for longer than a few seconds, in large pieces neither", () => {
  const { time, meter } = metered();
  for (; time.now <= 16_000; time.now += 8_000) meter.read("uploading", time.now * 250, 20 * MB);
  time.now = 17_000;
  meter.failing(true);
  time.now = 22_000;
  assert.equal(meter.now().bytesPerSecond, 0);
});

test("large pieces that come seldom have a rate, too", () => {
  const { time, meter } = metered();
  for (let piece = 0; piece <= 5; piece++) {
    time.now = piece * 8_000;
    meter.read("uploading", piece * 2 * MB, 20 * MB);
  }
  assert.equal(Math.round(meter.now().bytesPerSecond), 250_000);
});

test("what is done is never taken back within a phase", () => {
  const { meter } = metered();
  meter.read("hashing", 9 * MB, 9 * MB);
  assert.equal(meter.read("uploading", 4 * MB, 9 * MB).bytesDone, 4 * MB);
  assert.equal(meter.read("uploading", 2 * MB, 9 * MB).bytesDone, 4 * MB);
  assert.equal(meter.read("uploading", 5 * MB, 9 * MB).bytesDone, 5 * MB);
});

test("a network that has failed is waited for until it works", () => {
  const { meter } = metered();
  meter.read("uploading", 1, 2);
  assert.equal(meter.failing(true).waiting, true);
  assert.equal(meter.read("uploading", 1, 2).waiting, true);
  assert.equal(meter.failing(false).waiting, false);
});

/** A clock whose beats come when the test says so. */
function beating(t: { mock: typeof import("node:test").mock }, isHidden = false) {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const system = { now: 0 };
  const clock = new Clock(() => system.now, () => isHidden);
  const pass = (ms: number) => {
    system.now += ms;
    t.mock.timers.tick(1_000);
  };
  return { clock, pass };
}

test("time that was slept through is none", (t) => {
  const { clock, pass } = beating(t);
  let beats = 0;
  const stop = clock.beats(() => beats++);
  const began = clock.nowMs();
  pass(1_000);
  pass(1_500);
  assert.deepEqual([clock.nowMs() - began, clock.sleeps(), beats], [2_500, 0, 2]);
  pass(150_000);
  assert.deepEqual([clock.nowMs() - began, clock.sleeps()], [3_500, 1]);
  stop();
  stop();
});

test("whoever asks first after a sleep finds out, before any timer", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let now = 0;
  const clock = new Clock(() => now);
  const stop = clock.beats(() => {});
  now = 60_000;
  assert.deepEqual([clock.sleeps(), clock.nowMs()], [1, 1_000]);
  stop();
});

test("a hidden page, whose timers run once a minute, has not slept", (t) => {
  const { clock, pass } = beating(t, true);
  const stop = clock.beats(() => {});
  pass(60_000);
  assert.deepEqual([clock.nowMs(), clock.sleeps()], [60_000, 0]);
  pass(120_000);
  assert.equal(clock.sleeps(), 1);
  stop();
});

test("a clock nobody waits for has no timer, and goes on from where it is", (t) => {
  const { clock, pass } = beating(t);
  clock.beats(() => {})();
  pass(150_000);
  assert.deepEqual([clock.nowMs(), clock.sleeps()], [150_000, 0]);
});
