/** What is on its way, and what an earlier visit left unfinished. */

import type { OpenUpload } from "@openstorage/client";
import type { ChatInfo } from "@openstorage/client/candid/chat";

import { FileName } from "./file-name.js";
import { bytesText, secondsText } from "./format.js";
import { Icon, iconOf } from "./icons.js";
import { previewUrl } from "./preview.js";
import { allowance } from "./rooms.js";
import { batch, cancel, cancelAll, discard, goOn, goPremium, type Item, items, pause, pauseAll, resume, resumeAll, retry, retryAll, unfinished } from "./uploads.js";
import { words } from "./words.js";

/** Those for this room, where their messages will stand. */
export function UploadList({ room }: { room: ChatInfo }) {
  const own = items.value.filter((item) => item.room.chat_id === room.chat_id);
  if (own.length === 0) return null;
  return <ul class="uploads" aria-label={words.uploads}>{own.map((item) => <Running key={item.key} item={item} />)}</ul>;
}

/** All of them together, also for other rooms, where there is more than one. */
export function UploadSummary() {
  const { count, bytesTotal, bytesDone, bytesLeft } = batch.value;
  if (count < 2) return null;
  const stages = items.value.map(({ stage }) => stage);
  const failed = stages.filter((stage) => stage === "failed").length;
  const rate = items.value.reduce((sum, { stage, progress }) => sum + (stage === "running" && progress?.phase === "uploading" ? progress.bytesPerSecond : 0), 0);
  const parts = [words.sent(count - stages.length, count)];
  if (failed > 0) parts.push(words.failed(failed));
  if (rate > 0) parts.push(words.per(bytesText(rate)), words.left(secondsText(bytesLeft / rate)));
  return (
    <div class="summary" role="group" aria-label={words.allUploads}>
      <progress max={Math.max(1, bytesTotal)} value={bytesDone} aria-label={words.allUploads} />
      <small>{parts.join(" · ")}</small>
      <div class="buttons">
        {failed > 1 && <button class="small" onClick={retryAll}>{words.retryAll}</button>}
        {stages.includes("running") && <button class="small" onClick={pauseAll}>{words.pauseAll}</button>}
        {stages.includes("paused") && <button class="small" onClick={resumeAll}>{words.resumeAll}</button>}
        <button class="small" onClick={() => void cancelAll()}>{words.cancelAll}</button>
      </div>
    </div>
  );
}

function stateText({ file, stage, progress }: Item): string {
  if (stage === "posting") return words.posting;
  const { phase, bytesDone, bytesPerSecond } = progress ?? { phase: "waiting" as const, bytesDone: 0, bytesPerSecond: 0 };
  const isSending = phase === "uploading" || phase === "verifying";
  const parts = [isSending ? words.of(bytesText(bytesDone), bytesText(file.size)) : bytesText(file.size)];
  if (stage === "paused") return [words.paused, ...parts].join(" · ");
  parts.unshift(words.phases[phase]);
  if (phase === "uploading" && bytesPerSecond > 0) {
    parts.push(words.per(bytesText(bytesPerSecond)), words.left(secondsText((file.size - bytesDone) / bytesPerSecond)));
  }
  return parts.join(" · ");
}

function Running({ item }: { item: Item }) {
  const { key, file, folder, stage, progress, preview, error, isFull } = item;
  const isSending = progress !== undefined && progress.phase !== "hashing";
  const named = (verb: string) => ({ "aria-label": `${verb} ${file.name}`, title: verb });
  return (
    <li data-stage={stage}>
      <span class="tile">{preview ? <img src={previewUrl(preview)} alt="" /> : <Icon name={iconOf(file.type)} />}</span>
      <div class="label">
        <FileName name={folder + file.name} />
        {stage === "failed" ? (
          <p class="bad" role="alert">{error}</p>
        ) : (
          <>
            <progress max={Math.max(1, file.size)} value={isSending ? progress.bytesDone : 0} aria-label={file.name} />
            <small>{stateText(item)}</small>
          </>
        )}
        {stage === "failed" && (
          <div class="buttons">
            {isFull && !allowance.value?.isPremium && !allowance.value?.isFixed && <button class="small main" onClick={() => void goPremium()}>{words.premium}</button>}
            <button class="small" onClick={() => retry(item)}>{words.retry}</button>
          </div>
        )}
      </div>
      {stage === "running" && <button class="bare" {...named(words.pause)} onClick={() => pause(key)}><Icon name="pause" /></button>}
      {stage === "paused" && <button class="bare" {...named(words.resume)} onClick={() => resume(key)}><Icon name="resume" /></button>}
      {stage !== "posting" && (
        <button class="bare" {...named(stage === "failed" ? words.dismiss : words.cancel)} onClick={() => void cancel(key)}><Icon name="close" /></button>
      )}
    </li>
  );
}

/** Uploads of earlier visits and other devices: a page may not keep files, so the user chooses them again. */
export function UnfinishedList() {
  if (unfinished.value.length === 0) return null;
  return (
    <section class="unfinished" aria-label={words.unfinished}>
      <h3>{words.unfinished}</h3>
      <p class="quiet">{words.unfinishedText}</p>
      <ul class="uploads">{unfinished.value.map((upload) => <Unfinished key={upload.blobId} upload={upload} />)}</ul>
    </section>
  );
}

function Unfinished({ upload }: { upload: OpenUpload }) {
  const { size, bytesDone, record } = upload;
  const name = record?.name ?? words.elsewhere;
  const picked = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    const file = input.files?.[0];
    input.value = "";
    if (file) goOn(upload, file);
  };
  return (
    <li data-stage="unfinished">
      <span class="tile"><Icon name={iconOf(record?.mimeType ?? "")} /></span>
      <div class="label">
        <FileName name={name} />
        <progress max={size} value={bytesDone} aria-label={name} />
        <small>{words.of(bytesText(bytesDone), bytesText(size))}</small>
        <div class="buttons">
          <label class="button small main">
            {words.chooseAgain}
            <input class="hidden" type="file" aria-label={`${words.chooseAgain} ${name}`} onChange={picked} />
          </label>
          <button class="small" onClick={() => void discard(upload)}>{words.discard}</button>
        </div>
      </div>
    </li>
  );
}
