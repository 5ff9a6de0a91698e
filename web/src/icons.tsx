/** The page's pictograms: 24 × 24 outlines in the colour of the text. Beside them stands what they mean. */

const PATHS = {
  attach: "M20 11.5 12.2 19.3a5 5 0 0 1-7.1-7.1l8.2-8.2a3.3 3.3 0 0 1 4.7 4.7l-8.2 8.2a1.7 1.7 0 0 1-2.4-2.4l7.3-7.2",
  send: "M4 12 20 4l-4.5 16-4-7zM11.5 13 20 4",
  back: "M14.5 5.5 8 12l6.5 6.5",
  down: "M12 5v13M6.5 12.5 12 18l5.5-5.5",
  link: "M10 14a4 4 0 0 0 5.7 0l3.1-3.1a4 4 0 0 0-5.7-5.7l-1 1M14 10a4 4 0 0 0-5.7 0l-3.1 3.1a4 4 0 0 0 5.7 5.7l1-1",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.5 10.5v5.5M13.5 10.5v5.5",
  leave: "M10 4.5H5.5v15H10M14.5 8l4 4-4 4M9.5 12h9",
  forward: "M13.5 6 20 12l-6.5 6v-3.5C8 14.5 5 16 4 19c0-5.5 3.5-9 9.5-9.5z",
  save: "M12 4v11M7.5 11 12 15.5 16.5 11M5 19.5h14",
  pause: "M8.5 5.5v13M15.5 5.5v13",
  resume: "M8 5.5v13l10.5-6.5z",
  retry: "M19 12a7 7 0 1 1-2.2-5.1M19 4.5V8h-3.5",
  close: "M6 6l12 12M18 6 6 18",
  people: "M12.5 8.5a3.5 3.5 0 1 1-7 0 3.5 3.5 0 0 1 7 0zM2.5 19.5c.5-3.5 3-5.5 6.5-5.5s6 2 6.5 5.5M15.5 5.3a3.5 3.5 0 0 1 0 6.4M18 14.5c2 .8 3.2 2.5 3.5 5",
  add: "M12 5v14M5 12h14",
  file: "M6.5 3.5h7l4 4v13h-11zM13.5 3.5v4h4",
  film: "M3.5 6h12v12h-12zM15.5 10.5l5-3v9l-5-3",
  picture: "M4 5h16v14H4zM4 16l4.5-4.5 4 4 3-3L20 17M15.5 9.5h.01",
  sound: "M9 17.5V6l10-2v11.5M9 17.5a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0zM19 15.5a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0z",
  archive: "M4 5h16v4H4zM5.5 9v10h13V9M10 12.5h4",
  warning: "M12 4 21 19.5H3zM12 10v4.5M12 17h.01",
  box: "M4 9.5h16v8a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2zM3 5.5h18v4H3zM9.5 13h5",
};

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** What stands for a file of this type. */
export function iconOf(mimeType: string): IconName {
  const [kind = "", subtype = ""] = mimeType.split("/");
  if (kind === "image") return "picture";
  if (kind === "video") return "film";
  if (kind === "audio") return "sound";
  return /zip|tar|compressed|7z|rar/.test(subtype) ? "archive" : "file";
}
