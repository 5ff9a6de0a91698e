/** What a message shows: a picture, a film, a sound, or any other file. */

import { type Signal, useSignal } from "@preact/signals";
import { isOpenStorageError } from "@openstorage/client";
import type { Shown } from "@openstorage/client/elements";
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { Dialog } from "./dialog.js";
import { explain } from "./explain.js";
import { FileName } from "./file-name.js";
import { bytesText, plainName } from "./format.js";
import { Icon, iconOf } from "./icons.js";
import { isShown, kindOf } from "./kinds.js";
import { whenNear } from "./near.js";
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

type NamedProps = AttachedProps & { name: string };

export function Attached(props: AttachedProps) {
  const { attachment, name = words.file } = props;
  const { size, mimeType } = attachment.reference;
  const isTried = useSignal(false);
  const kind = size > 0 ? kindOf(mimeType) : undefined;
  const named = { ...props, name };
  if (!kind) return <Other {...named} />;
  if (!isTried.value && !isShown(kind, mimeType)) {
    return (
      <Other {...named}>
        <p class="quiet">{words.notShown[kind](endingOf(name, mimeType))}</p>
        <button class="small" onClick={() => (isTried.value = true)}>{words.showAnyway}</button>
      </Other>
    );
  }
  if (kind === "picture") return <Picture {...named} />;
  return <Player {...named} kind={kind} />;
}

/** `HEIC`, as people call a kind of file. */
function endingOf(name: string, mimeType: string): string {
  const ending = /\.([A-Za-z0-9]{1,5})$/.exec(name)?.[1] ?? mimeType.split("/")[1] ?? "";
  return ending.toUpperCase();
}

/** A file that is not shown, with what is to be said of it. */
function Other({ attachment, name, preview, time, children }: NamedProps & { children?: ComponentChildren }) {
  return (
    <>
      <div class="file">
        <span class="tile">{preview ? <img src={previewUrl(preview)} alt="" /> : <Icon name={iconOf(attachment.reference.mimeType)} />}</span>
        <Caption attachment={attachment} name={name} time={time} />
      </div>
      {children && <div class="about">{children}</div>}
    </>
  );
}

function Picture({ attachment, name, preview, time }: NamedProps) {
  const isOpen = useSignal(false);
  const why = useSignal("");
  return (
    <figure>
      {why.value ? (
        <Failed why={why} />
      ) : (
        <button class="view" aria-label={words.openPicture(plainName(name))} onClick={() => (isOpen.value = true)}>
          <Media preview={preview}>
            <Stored tag="stored-image" attachment={attachment} name={name} isLazy alt="" onready={fit} onfailed={teller(why)}>
              {placeholder(preview)}
            </Stored>
          </Media>
        </button>
      )}
      <figcaption><Caption attachment={attachment} name={name} time={time} /></figcaption>
      {isOpen.value && (
        <Dialog class="lightbox" label={words.picture(plainName(name))} onClose={() => (isOpen.value = false)}>
          <Stored tag="stored-image" attachment={attachment} name={name} alt={words.picture(plainName(name))}>{placeholder(preview)}</Stored>
          <form method="dialog">
            <span dir="auto">{plainName(name)}</span>
            <button class="bare" aria-label={words.close} title={words.close}><Icon name="close" /></button>
          </form>
        </Dialog>
      )}
    </figure>
  );
}

/** A film or a sound, with the browser's controls. */
function Player({ attachment, name, preview, time, kind }: NamedProps & { kind: "film" | "sound" }) {
  const why = useSignal("");
  const shared = { attachment, name, isLazy: true, onfailed: teller(why) };
  return (
    <figure class={kind}>
      {why.value ? (
        <Failed why={why} />
      ) : kind === "film" ? (
        <Media preview={preview}>
          <Stored tag="stored-video" {...shared} alt={words.film(plainName(name))}>{placeholder(preview)}</Stored>
        </Media>
      ) : (
        <Stored tag="stored-audio" {...shared} alt={words.sound(plainName(name))} />
      )}
      <figcaption><Caption attachment={attachment} name={name} time={time} /></figcaption>
    </figure>
  );
}

/** Stands where a picture, film or sound cannot be shown; an empty `why` lets it be tried again. */
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

type Player = HTMLElement & { shown: Shown | undefined };

interface StoredProps extends StoredAttributes {
  tag: "stored-image" | "stored-video" | "stored-audio";
  attachment: Attachment;
  name: string;
  /** Nothing is loaded before the user comes near. */
  isLazy?: boolean;
}

/** One of the library's elements, with what it shows: an attribute could not hold it. */
function Stored({ tag: Tag, attachment, name, isLazy = false, ...attributes }: StoredProps) {
  const { reference, accessorId, token } = attachment;
  const element = useRef<Player>(null);
  const isNear = useSignal(!isLazy);
  useEffect(() => {
    if (isLazy && element.current) return whenNear(element.current, () => (isNear.value = true));
    return undefined;
  }, []);
  useEffect(() => {
    if (!element.current || !isNear.value) return;
    element.current.shown = { reference, accessorId, name, ...(token !== undefined && { token }) };
  }, [isNear.value, reference.blobId, accessorId, token]);
  return <Tag ref={element} {...attributes} />;
}

function Caption({ attachment, name, time }: Pick<NamedProps, "attachment" | "name" | "time">) {
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
      <button class="bare" disabled={isBusy.value} onClick={start} aria-label={`${words.save} ${plainName(name)}`} title={words.save}>
        <Icon name="save" />
      </button>
    </>
  );
}

interface StoredAttributes {
  alt?: string;
  onready?: (event: Event) => void;
  onfailed?: (event: CustomEvent<unknown>) => void;
  children?: ComponentChildren;
}

type ElementAttributes = StoredAttributes & { ref?: RefObject<Player | null> };

declare module "preact" {
  namespace JSX {
    interface IntrinsicElements {
      "stored-image": ElementAttributes;
      "stored-video": ElementAttributes;
      "stored-audio": ElementAttributes;
    }
  }
}
