/** What is on its way, and what an earlier visit left unfinished. */

import type { UnfinishedUpload } from "@openstorage/client";

import { bytesText, secondsText } from "./format.js";
import { cancel, discard, goOn, goPremium, type Item, items, pause, resume, retry, unfinished } from "./uploads.js";
import { words } from "./words.js";

export function UploadList() {
  if (items.value.length + unfinished.value.length === 0) return null;
  return (
    <div class="uploads">
      {unfinished.value.length > 0 && (
        <section aria-label={words.unfinished}>
          <h3>{words.unfinished}</h3>
          <p class="quiet">{words.unfinishedText}</p>
          <ul>{unfinished.value.map((upload) => <Unfinished key={upload.blobId} upload={upload} />)}</ul>
        </section>
      )}
      {items.value.length > 0 && (
        <ul aria-label={words.uploads}>{items.value.map((item) => <Running key={item.key} item={item} />)}</ul>
      )}
    </div>
  );
}

function stateText({ stage, progress }: Item): string {
  if (stage === "paused") return words.paused;
  if (stage === "posting") return words.posting;
  if (!progress) return words.waiting;
  const { phase, bytesDone, bytesTotal, bytesPerSecond } = progress;
  const parts = [words.phases[phase], `${bytesText(bytesDone)} / ${bytesText(bytesTotal)}`];
  if (bytesPerSecond > 0) {
    parts.push(words.per(bytesText(bytesPerSecond)));
    if (phase === "uploading") parts.push(words.left(secondsText((bytesTotal - bytesDone) / bytesPerSecond)));
  }
  return parts.join(" · ");
}

function Running({ item }: { item: Item }) {
  const { key, file, stage, progress, error, isFull } = item;
  const isHashing = progress?.phase === "hashing";
  const done = progress && !isHashing ? progress.bytesDone : 0;
  return (
    <li data-stage={stage}>
      <span class="name">{file.name}</span>
      {stage === "failed" ? (
        <p class="bad" role="alert">{error}</p>
      ) : (
        <>
          <progress max={Math.max(1, file.size)} value={done} aria-label={file.name} />
          <small>{stateText(item)}</small>
        </>
      )}
      <div class="buttons">
        {stage === "running" && <button onClick={() => pause(key)}>{words.pause}</button>}
        {stage === "paused" && <button onClick={() => resume(key)}>{words.resume}</button>}
        {isFull && <button class="main" onClick={() => void goPremium()}>{words.premium}</button>}
        {stage === "failed" && <button onClick={() => retry(item)}>{words.retry}</button>}
        {stage !== "posting" && <button onClick={() => void cancel(key)}>{stage === "failed" ? words.dismiss : words.cancel}</button>}
      </div>
    </li>
  );
}

function Unfinished({ upload }: { upload: UnfinishedUpload }) {
  const { name = words.file, size, bytesDone } = upload;
  const picked = (event: Event) => {
    const file = (event.currentTarget as HTMLInputElement).files?.[0];
    if (file) goOn(upload, file);
  };
  return (
    <li data-stage="unfinished">
      <span class="name">{name}</span>
      <progress max={size} value={bytesDone} aria-label={name} />
      <small>{bytesText(bytesDone)} / {bytesText(size)}</small>
      <div class="buttons">
        <label class="button">
          {words.chooseAgain}
          <input class="hidden" type="file" aria-label={`${words.chooseAgain} ${name}`} onChange={picked} />
        </label>
        <button onClick={() => void discard(upload)}>{words.discard}</button>
      </div>
    </li>
  );
}
