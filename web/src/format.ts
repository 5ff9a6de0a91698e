/** Figures as people read them. */

import { words } from "./words.js";

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** `1.5 MB`. */
export function bytesText(bytes: number): string {
  let unit = 0;
  let value = bytes;
  for (; value >= 999.5 && unit < UNITS.length - 1; unit++) value /= 1000;
  return `${value < 99.95 ? Number(value.toFixed(1)) : Math.round(value)} ${UNITS[unit]}`;
}

/** `12 s`, `3 min`, `2 h`. */
export function secondsText(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** Characters that turn the direction of what follows, so that `gpj.exe` can be made to look like `exe.jpg`. */
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** A name as it is, in the order in which it is written. */
export function plainName(name: string): string {
  return name.replace(TURNS, "\ufffd");
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DAY_MS = 86_400_000;

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });

/** Day and time. */
export function momentText(ms: number): string {
  return MOMENT.format(ms);
}

export function timeText(ms: number): string {
  return TIME.format(ms);
}

/** `Today`, `Yesterday`, `Monday, 24 November`. */
export function dayText(ms: number): string {
  const day = new Date(ms).toDateString();
  if (day === new Date().toDateString()) return words.today;
  return day === new Date(Date.now() - DAY_MS).toDateString() ? words.yesterday : DAY.format(ms);
}
