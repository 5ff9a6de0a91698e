/** A file's name in one line: where it is too long, the end of its stem is left out, and what kind of file it is stays. */

import { plainName } from "./format.js";

const EXTENSION = /\.[A-Za-z0-9]{1,10}$/;

export function FileName({ name }: { name: string }) {
  const shown = plainName(name);
  const at = shown.search(EXTENSION);
  const [stem, extension] = at > 0 ? [shown.slice(0, at), shown.slice(at)] : [shown, ""];
  return (
    <span class="name" dir="auto" title={shown}>
      <span>{stem}</span>
      <span>{extension}</span>
    </span>
  );
}
