/**
 * How many chunks are on their way at the same time: as many as make the whole faster.
 *
 * One pace is shared by all chunks of an `OpenStorage` that go the same way, so that ten files dropped at once do not
 * push ten times as hard as one. The number starts low and doubles: before the first answer, five times a second, since all
 * that a line is known to cost then is latency; after it, as long as that brings more bytes a second. A line that was idle
 * before its number was found is opened up like a new one: a small file has told nothing about a large one. What was given
 * before the first answer is halved as long as that costs nothing. From there on the pace tries one more, or one fewer,
 * and takes back what was for nothing. A chunk that got lost halves the number. A thin line is given no more than it
 * carries away in a few seconds.
 *
 * A change is judged by the chunks that left after it, over as many answers as chunks may be in flight.
 */

import { clock } from "./clock.js";
import { CHUNK_BYTES } from "./limits.js";

const LIMIT_FIRST = 4;
/** Before the first answer the number doubles after so long. */
const DOUBLE_MS = 200;
/** Chunks whose bytes have not all gone out keep further ones back: so many fill any line. */
const LEAVING_MAX = 4;
/** Twice as many must bring so much more, or the line was full before. */
const GAIN_OF_DOUBLING = 1.25;
/** One more must bring so much more, or it was for nothing; fewer may cost less than that. */
const GAIN_OF_ONE = 1.05;
/** A message costs as much time as so many bytes: small files are to count too. */
const MESSAGE_BYTES = 200_000;
/** Trips without another try after a rise that was for nothing, or a loss. */
const TRIPS_HELD = 8;
/** What is on its way is to arrive within so long. */
const LINE_MS = 10_000;
/** Without an answer for so long the line is taken to be too thin for what is on its way. */
const THIN_MS = 60_000;
/** The agent's requests expire after 4 to 5 minutes: a chunk is to arrive before that. */
const ARRIVES_MS_MAX = 180_000;
/** Over so long the rate is measured at which bytes go out. */
const LEAVING_MS = 20_000;
/** A line of which nothing is known is taken to carry so many bytes a second: 80 kbit/s. */
const RATE_MIN = 10_000;
/** A chunk of which nothing is heard for so much longer than others take is taken for lost. */
const STALL_FACTOR = 8;
const STALL_MS_MIN = 30_000;
/** The same once all of it has gone out: buffers on the way may hold all of a chunk. */
const ANSWER_MS_MIN = 60_000;
const STALL_MS_MAX = 300_000;

/** How a chunk's trip ended. */
export type Trip =
  | { readonly end: "arrived"; readonly bytes: number }
  /** No answer in time, or the connection broke. */
  | { readonly end: "lost" }
  /** Refused, aborted, taken back: says nothing about the network. */
  | { readonly end: "other" };

/** Somebody who waits for a slot. */
interface Waiter {
  readonly bytes: number;
  go(flight: Flight): void;
}

/** A slot for one chunk, to be given back. */
export interface Slot {
  /** So many of the chunk's bytes have gone out. A transport that cannot tell says nothing. */
  sent(bytes: number): void;
  /**
   * To be asked once a second while no answer comes, for the `attempt`-th time from 0 that the chunk is sent.
   *
   * - `lost`: nothing moves any more.
   * - `crowded`: the line is too thin for so many; this one is to wait for its turn again.
   */
  verdict(attempt: number): "wait" | "lost" | "crowded";
  done(trip: Trip): void;
}

/** A chunk on its way. */
interface Flight {
  readonly bytes: number;
  readonly startMs: number;
  /** When something of it was last seen to move. */
  movedMs: number;
  /** Of its bytes, those that have gone out; `undefined` while nobody has told. */
  sent: number | undefined;
  /** The line is too thin for it beside the others. */
  isCrowded: boolean;
}

/**
 * - `opening`: nobody has been answered yet.
 * - `halving`, `doubling`: far from the right number.
 * - `climbing`: near it.
 */
type Phase = "opening" | "halving" | "doubling" | "climbing";

/** What the present limit brings. */
interface Measured {
  /** Since when it holds. */
  readonly sinceMs: number;
  /** When the first chunk that had left since then was answered: counted from there. */
  fromMs: number | undefined;
  bytes: number;
  answers: number;
  /** Somebody had to wait because of it. */
  wasFull: boolean;
}

export class Pace {
  #limit: number;
  /** In the order in which they left. */
  readonly #flights = new Set<Flight>();
  #bytesInFlight = 0;
  readonly #waiting: Waiter[] = [];
  #phase: Phase = "opening";
  #doubling: ReturnType<typeof setTimeout> | undefined;
  #trip: Measured = { sinceMs: 0, fromMs: undefined, bytes: 0, answers: 0, wasFull: false };
  /** The limit that is held against the present one, and what it brought. */
  #before = { rate: 0, limit: 0 };
  #step: 1 | -1 = 1;
  #isTrial = false;
  #held = 0;
  #cutAtMs = 0;
  /** How long chunks take, by {@link sizeClass}. */
  readonly #tripMs = new Map<number, number>();
  #answeredMs = 0;
  #sentBytes = 0;
  #leaving = { sinceMs: 0, bytes: 0 };

  /**
   * @param limitMax chunks in flight, at most
   * @param bytesMax bytes in flight, at most, but for a chunk that is alone
   */
  constructor(
    private readonly limitMax: number,
    private readonly bytesMax = Number.POSITIVE_INFINITY,
    private readonly nowMs: () => number = () => clock.nowMs(),
  ) {
    this.#limit = Math.min(LIMIT_FIRST, limitMax);
  }

  /** Chunks that may be in flight now. */
  get limit(): number {
    return this.#limit;
  }

  /**
   * After how long a chunk that is sent for the `attempt`-th time, from 0, is taken for lost if nothing is heard of it.
   * Longest while no answer has told anything about the line.
   */
  stallMs(attempt: number, bytes = CHUNK_BYTES): number {
    const tripMs = this.#tripMs.get(sizeClass(bytes));
    const likelyMs = tripMs === undefined ? (1_000 * Math.max(this.#bytesInFlight, bytes)) / RATE_MIN : STALL_FACTOR * tripMs;
    return Math.min(STALL_MS_MAX, Math.max(STALL_MS_MIN, likelyMs) * 2 ** attempt);
  }

  /** Waits for a slot for so many bytes, first come first served. @throws the signal's reason */
  async slot(bytes: number, signal?: AbortSignal): Promise<Slot> {
    signal?.throwIfAborted();
    const isFree = this.#waiting.length === 0 && this.#fits(bytes);
    const flight = isFree ? this.#depart(bytes) : await this.#turn(bytes, signal);
    return {
      sent: (sent) => this.#sent(flight, sent),
      verdict: (attempt) => this.#verdict(flight, attempt),
      done: (trip) => {
        if (!this.#flights.delete(flight)) return;
        this.#bytesInFlight -= bytes;
        this.#learn(trip, flight);
        this.#wake();
      },
    };
  }

  get #isFull(): boolean {
    return this.#flights.size >= this.#limit || this.#leavingNow.length >= LEAVING_MAX;
  }

  /** The chunks of which it is known that some bytes have not gone out. */
  get #leavingNow(): Flight[] {
    return [...this.#flights].filter(({ bytes, sent }) => sent !== undefined && sent < bytes);
  }

  #fits(bytes: number): boolean {
    return !this.#isFull && (this.#flights.size === 0 || this.#bytesInFlight + bytes <= this.bytesMax);
  }

  #depart(bytes: number): Flight {
    const now = this.nowMs();
    if (this.#flights.size === 0) this.#begin(now);
    const flight: Flight = { bytes, startMs: now, movedMs: now, sent: undefined, isCrowded: false };
    this.#flights.add(flight);
    this.#bytesInFlight += bytes;
    return flight;
  }

  /** The line was idle: what is measured begins now. */
  #begin(now: number): void {
    this.#newTrip(now);
    if (this.#phase !== "doubling") return;
    this.#phase = "opening";
    this.#before = { rate: 0, limit: 0 };
  }

  #turn(bytes: number, signal?: AbortSignal): Promise<Flight> {
    // Who waits for memory would not go sooner if more chunks were let in.
    if (this.#isFull) this.#trip.wasFull = true;
    return new Promise((resolve, reject) => {
      const waiter = {
        bytes,
        go: (flight: Flight) => {
          signal?.removeEventListener("abort", abort);
          resolve(flight);
        },
      };
      const abort = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        this.#wake();
        reject(signal?.reason);
      };
      this.#waiting.push(waiter);
      signal?.addEventListener("abort", abort, { once: true });
      this.#openUp();
    });
  }

  /** Lets more and more go while nobody has been answered yet. */
  #openUp(): void {
    if (this.#phase !== "opening" || this.#limit >= this.limitMax) return;
    if (this.#doubling || this.#waiting.length === 0) return;
    this.#doubling = setTimeout(() => {
      this.#doubling = undefined;
      if (this.#phase !== "opening") return;
      // Where bytes are still about to go out, the line is what holds them back.
      if (this.#leavingNow.length < LEAVING_MAX) this.#limit = Math.min(2 * this.#limit, this.limitMax);
      this.#wake();
      this.#openUp();
    }, DOUBLE_MS);
  }

  /** Whoever is let in has its slot already. */
  #wake(): void {
    for (let [next] = this.#waiting; next && this.#fits(next.bytes); [next] = this.#waiting) {
      this.#waiting.shift();
      next.go(this.#depart(next.bytes));
    }
    if (this.#waiting.length > 0) return;
    clearTimeout(this.#doubling);
    this.#doubling = undefined;
  }

  #sent(flight: Flight, sent: number): void {
    const before = flight.sent ?? 0;
    flight.sent = Math.min(Math.max(before, sent), flight.bytes);
    if (flight.sent === before) return;
    this.#sentBytes += flight.sent - before;
    flight.movedMs = this.nowMs();
    if (flight.sent === flight.bytes) this.#wake();
  }

  #verdict(flight: Flight, attempt: number): "wait" | "lost" | "crowded" {
    const now = this.nowMs();
    this.#thinOut(now);
    if (flight.isCrowded) return "crowded";
    const isLeaving = flight.sent !== undefined && flight.sent < flight.bytes;
    const patientMs = isLeaving ? STALL_MS_MIN * 2 ** attempt : Math.max(ANSWER_MS_MIN, this.stallMs(attempt, flight.bytes));
    return now - flight.movedMs >= Math.min(patientMs, STALL_MS_MAX) ? "lost" : "wait";
  }

  /** Takes back the newest chunks where the line does not carry so many in time. */
  #thinOut(now: number): void {
    const [oldest] = this.#flights;
    if (!oldest || this.#flights.size === 1) return;
    if (now - Math.max(this.#answeredMs, oldest.startMs) >= THIN_MS) {
      this.#answeredMs = now;
      this.#shrinkTo(Math.floor(this.#flights.size / 2));
    }
    const { sinceMs, bytes } = this.#leaving;
    if (now - sinceMs < LEAVING_MS) return;
    this.#leaving = { sinceMs: now, bytes: this.#sentBytes };
    const leaving = this.#leavingNow;
    const carried = (this.#sentBytes - bytes) * (ARRIVES_MS_MAX / (now - sinceMs));
    // Nothing at all went out: that is no thin line, but none.
    if (carried === 0 || now - Math.max(sinceMs, oldest.startMs) < LEAVING_MS) return;
    const few = Math.max(1, Math.floor(carried / oldest.bytes));
    if (leaving.length > few) this.#shrinkTo(this.#flights.size - leaving.length + few);
  }

  #shrinkTo(limit: number): void {
    this.#limit = Math.max(1, Math.min(limit, this.#limit));
    this.#hold();
    this.#newTrip(this.nowMs());
    [...this.#flights].slice(this.#limit).forEach((flight) => (flight.isCrowded = true));
  }

  #learn(trip: Trip, { startMs, bytes }: Flight): void {
    const now = this.nowMs();
    if (trip.end === "lost") return this.#cut(startMs, now);
    if (trip.end === "other") return;
    const size = sizeClass(bytes);
    const usual = this.#tripMs.get(size) ?? now - startMs;
    this.#tripMs.set(size, 0.8 * usual + 0.2 * (now - startMs));
    this.#answeredMs = now;
    const measured = this.#trip;
    if (this.#phase === "opening") this.#phase = this.#limit > LIMIT_FIRST ? "halving" : "doubling";
    if (startMs < measured.sinceMs) return;
    if (measured.fromMs === undefined) {
      measured.fromMs = now;
      return;
    }
    measured.bytes += trip.bytes + MESSAGE_BYTES;
    measured.answers++;
    if (measured.answers >= this.#limit) this.#judge(measured, measured.bytes / Math.max(now - measured.fromMs, 1));
  }

  /** Half as many. Chunks that were sent before the last cut say nothing new. */
  #cut(startMs: number, now: number): void {
    if (startMs < this.#cutAtMs) return;
    this.#cutAtMs = now;
    this.#limit = Math.max(1, Math.floor(this.#limit / 2));
    this.#hold();
    this.#newTrip(now);
  }

  #hold(): void {
    this.#phase = "climbing";
    this.#isTrial = false;
    this.#held = TRIPS_HELD;
  }

  #judge({ bytes, answers, wasFull }: Measured, rate: number): void {
    if (this.#phase === "climbing") this.#climb(rate, wasFull);
    else this.#leap(rate, wasFull);
    const carried = 1 + Math.floor((rate * LINE_MS) / (bytes / answers));
    this.#limit = Math.min(this.#limit, this.limitMax, carried);
    this.#newTrip(this.nowMs());
  }

  #leap(rate: number, wasFull: boolean): void {
    const { rate: rateBefore, limit } = this.#before;
    const isHalving = this.#phase === "halving";
    const isGood = isHalving ? rate * GAIN_OF_ONE >= rateBefore : rate >= rateBefore * GAIN_OF_DOUBLING;
    if (!isGood || (isHalving && this.#limit <= LIMIT_FIRST)) {
      if (!isGood) this.#limit = limit;
      return this.#hold();
    }
    if (!isHalving && !wasFull) return;
    this.#before = { rate, limit: this.#limit };
    this.#limit = isHalving ? Math.max(LIMIT_FIRST, Math.floor(this.#limit / 2)) : 2 * this.#limit;
  }

  #climb(rate: number, wasFull: boolean): void {
    const { rate: rateBefore, limit } = this.#before;
    if (this.#isTrial) {
      this.#isTrial = false;
      const isGood = this.#step === 1 ? rate >= rateBefore * GAIN_OF_ONE : rate * GAIN_OF_ONE >= rateBefore;
      if (!isGood) {
        this.#limit = limit;
        this.#step = this.#step === 1 ? -1 : 1;
        return this.#hold();
      }
    }
    if (this.#held > 0) {
      this.#held--;
    } else if (wasFull) {
      if (this.#limit <= 2) this.#step = 1;
      this.#before = { rate, limit: this.#limit };
      this.#limit += this.#step;
      this.#isTrial = true;
    }
  }

  #newTrip(now: number): void {
    const wasFull = this.#waiting.length > 0 && this.#isFull;
    this.#trip = { sinceMs: now, fromMs: undefined, bytes: 0, answers: 0, wasFull };
  }
}

/** Chunks of about one size take about one time. */
function sizeClass(bytes: number): number {
  return Math.ceil(Math.log2(bytes + MESSAGE_BYTES));
}
