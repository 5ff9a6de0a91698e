/** What was dropped on the page: files, and those in folders, as deep as they go. */

/** A file, and the folder in which it was dropped: `album/2024/`. */
export interface Dropped {
  readonly file: File;
  readonly folder?: string;
}

/** To be called within the event: the browser takes the list back when that is over. */
export async function droppedFiles(data: DataTransfer | null): Promise<Dropped[]> {
  const items = [...(data?.items ?? [])].filter(({ kind }) => kind === "file");
  const found = items.map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() }));
  const files = found.map(async ({ entry, file }) => (entry?.isDirectory ? filesIn(entry as FileSystemDirectoryEntry, "") : file ? [{ file }] : []));
  return (await Promise.all(files)).flat();
}

async function filesIn(entry: FileSystemDirectoryEntry, above: string): Promise<Dropped[]> {
  const reader = entry.createReader();
  const folder = `${above}${entry.name}/`;
  const files: Dropped[] = [];
  for (;;) {
    // A folder is told in parts; an empty one is the end.
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return files;
    for (const inside of part) {
      if (inside.isDirectory) files.push(...(await filesIn(inside as FileSystemDirectoryEntry, folder)));
      else files.push({ file: await new Promise<File>((resolve, reject) => (inside as FileSystemFileEntry).file(resolve, reject)), folder });
    }
  }
}
