/** A file's name in one line: where it is too long, the end of its stem is left out, and what kind of file it is stays. */

const EXTENSION = /\.[A-Za-z0-9]{1,10}$/;

export function FileName({ name }: { name: string }) {
  const at = name.search(EXTENSION);
  const [stem, extension] = at > 0 ? [name.slice(0, at), name.slice(at)] : [name, ""];
  return (
    <span class="name" dir="auto" title={name}>
      <span>{stem}</span>
      <span>{extension}</span>
    </span>
  );
}
