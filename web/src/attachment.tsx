/** What a message shows: a picture, a film, or any other file. */

import { type Signal, useSignal } from "@preact/signals";
import { isOpenStorageError } from "@openstorage/client";
import type { Shown } from "@openstorage/client/elements";
import type { ComponentChildren } from "preact";

import { Dialog } from "./dialog.js";
import { explain } from "./explain.js";
import { FileName } from "./file-name.js";
import { bytesText } from "./format.js";
import { Icon, iconOf } from "./icons.js";
import { type Attachment, save } from "./posts.js";
import { previewSize, previewUrl } from "./preview.js";
import { words } from "./words.js";

interface AttachedProps {
  attachment: Attachment;
  name: string | undefined;
  preview: Uint8Array | undefined;
  /** Stands beside the size. */
  time: ComponentChildren;
}

export function Attached(props: AttachedProps) {
  const { attachment, name = words.file, time } = props;
  const { size, mimeType } = attachment.reference;
  const [kind] = size > 0 ? mimeType.split("/") : [];
  if (kind === "image") return <Picture {...props} name={name} />;
  if (kind === "video") return <Film {...props} name={name} />;
  return (
    <div class="file">
      <span class="tile"><Icon name={iconOf(mimeType)} /></span>
      <Caption attachment={attachment} name={name} time={time} />
    </div>
  );
}

function Picture({ attachment, name, preview, time }: AttachedProps & { name: string }) {
  const isOpen = useSignal(false);
  const why = useSignal("");
  return (
    <figure>
      {why.value ? (
        <Failed why={why} />
      ) : (
        <button class="view" aria-label={words.openPicture(name)} onClick={() => (isOpen.value = true)}>
          <Media preview={preview}>
            <stored-image ref={shower(attachment, name)} alt="" onready={fit} onfailed={teller(why)}>{placeholder(preview)}</stored-image>
          </Media>
        </button>
      )}
      <figcaption><Caption attachment={attachment} name={name} time={time} /></figcaption>
      {isOpen.value && (
        <Dialog class="lightbox" label={words.picture(name)} onClose={() => (isOpen.value = false)}>
          <stored-image ref={shower(attachment, name)} alt={words.picture(name)}>{placeholder(preview)}</stored-image>
          <form method="dialog">
            <span dir="auto">{name}</span>
            <button class="bare" aria-label={words.close} title={words.close}><Icon name="close" /></button>
          </form>
        </Dialog>
      )}
    </figure>
  );
}

function Film({ attachment, name, preview, time }: AttachedProps & { name: string }) {
  const why = useSignal("");
  return (
    <figure>
      {why.value ? (
        <Failed why={why} />
      ) : (
        <Media preview={preview}>
          <stored-video ref={shower(attachment, name)} alt={words.film(name)} onfailed={teller(why)}>{placeholder(preview)}</stored-video>
        </Media>
      )}
      <figcaption><Caption attachment={attachment} name={name} time={time} /></figcaption>
    </figure>
  );
}

/** Stands where a picture or film cannot be shown; an empty `why` lets it be tried again. */
function Failed({ why }: { why: Signal<string> }) {
  return (
    <div class="media failed">
      <p role="status">{why.value}</p>
      <button class="small" onClick={() => (why.value = "")}>{words.tryAgain}</button>
    </div>
  );
}

/** Puts an element's failure into words. What is no error of the library is the browser's, which gives no reason. */
function teller(why: Signal<string>) {
  return ({ detail }: CustomEvent<unknown>) => {
    why.value = isOpenStorageError(detail) ? explain(detail) : words.cannotShow;
  };
}

/** Beyond it, what is very wide or very high is cut; the whole is seen when it is opened. */
const RATIO_MAX = 2.4;

/** A picture less wide than this, in pixels, is shown as large as it is. */
const TINY_PX = 128;

/** Where a picture is smaller than its box, the box becomes as small. */
function fit({ currentTarget }: Event): void {
  const element = currentTarget as HTMLElement;
  const width = element.shadowRoot?.querySelector("img")?.naturalWidth;
  if (!width || !element.parentElement) return;
  element.parentElement.style.setProperty("--natural", `${width}px`);
  element.parentElement.classList.toggle("tiny", width < TINY_PX);
}

/** A box of the shape that the preview has: nothing moves when the bytes have come. */
function Media({ preview, children }: { preview: Uint8Array | undefined; children: ComponentChildren }) {
  const size = preview && previewSize(preview);
  if (!size) return <span class="media">{children}</span>;
  const ratio = Math.min(RATIO_MAX, Math.max(1 / RATIO_MAX, size.width / size.height));
  return <span class="media sized" style={{ "--ratio": ratio.toFixed(3) }}>{children}</span>;
}

function placeholder(preview: Uint8Array | undefined) {
  return preview && <img slot="placeholder" class="preview" src={previewUrl(preview)} alt="" />;
}

/** Gives an element what it shows: an attribute could not hold it. */
function shower({ reference, accessorId, token }: Attachment, name: string) {
  const shown: Shown = { reference, accessorId, name, ...(token !== undefined && { token }) };
  return (element: { shown: Shown | undefined } | null) => {
    if (element) element.shown = shown;
  };
}

function Caption({ attachment, name, time }: Omit<AttachedProps, "preview"> & { name: string }) {
  const isBusy = useSignal(false);
  const start = () => {
    isBusy.value = true;
    void save(attachment, name).then(() => (isBusy.value = false));
  };
  return (
    <>
      <span class="label">
        <FileName name={name} />
        <small>{isBusy.value ? words.saving : bytesText(attachment.reference.size)} · {time}</small>
      </span>
      <button class="bare" disabled={isBusy.value} onClick={start} aria-label={`${words.save} ${name}`} title={words.save}>
        <Icon name="save" />
      </button>
    </>
  );
}

type StoredAttributes = {
  alt?: string;
  onready?: (event: Event) => void;
  onfailed?: (event: CustomEvent<unknown>) => void;
  ref?: (element: { shown: Shown | undefined } | null) => void;
  children?: ComponentChildren;
};

declare module "preact" {
  namespace JSX {
    interface IntrinsicElements {
      "stored-image": StoredAttributes;
      "stored-video": StoredAttributes;
    }
  }
}
