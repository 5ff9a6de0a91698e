/** A round letter in a colour of its own, for somebody or something that has no picture. */

/** Hues, in degrees, that are told apart at this size. */
const HUES = 12;

/** @param id decides the colour, so that two of the same name differ */
export function Avatar({ id, name }: { id: string; name: string }) {
  let sum = 0;
  for (const char of id) sum = (sum * 31 + (char.codePointAt(0) ?? 0)) % 9_973;
  const letter = [...name.trim()][0]?.toUpperCase() ?? "?";
  return (
    <span class="avatar" style={{ "--hue": String((sum % HUES) * (360 / HUES)) }} aria-hidden="true">
      {letter}
    </span>
  );
}
