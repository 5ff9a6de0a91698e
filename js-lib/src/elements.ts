/**
 * `<stored-image>`, `<stored-video>`, `<stored-audio>`, `<stored-file>`: a blob as the browser's own elements show it. From
 * the cache when its hash is there; with a placeholder while it loads; with a fresh token when the one at
 * hand has expired. Importing this module defines them.
 *
 * ```html
 * <stored-image alt="The lighthouse"><div slot="placeholder">…</div></stored-image>
 * ```
 *
 * ```ts
 * import { setStorage } from "@openstorage/client/elements";
 *
 * setStorage(storage, (reference, accessorId) => tokenFromMyCanister(reference, accessorId));
 * const image = document.querySelector("stored-image");
 * image.shown = { reference, accessorId, token };
 * image.shown = { inline: { bytes: record.base64, mimeType: "image/png" } };
 * ```
 *
 * The attribute `state` is `empty`, `loading`, `ready` or `failed`; the events `ready` and `failed` (its
 * `detail` is the error) tell of the end. The parts `content` and `message` can be styled.
 */

import { type Display, type DisplayOptions, displayBlob, displayInline, type GetToken, inlineBytes, type InlineFile } from "./display.js";
import { OpenStorageError } from "./errors.js";
import type { OpenStorage } from "./open-storage.js";
import type { BlobReference } from "./reference.js";

export { type Display, type DisplayOptions, displayBlob, displayInline, type GetToken, type InlineFile } from "./display.js";

/** What an element shows: a stored blob, or a small file that lies in the app's record. */
export type Shown = ShownBlob | ShownInline;

export interface ShownBlob {
  readonly reference: BlobReference;
  readonly accessorId: string;
  /** Without it the element asks the function given to {@link setStorage}. */
  readonly token?: string;
  /** A file name, for `<stored-file>`. */
  readonly name?: string;
}

export interface ShownInline {
  readonly inline: InlineFile;
  /** A file name, for `<stored-file>`. */
  readonly name?: string;
}

function isSame(one: Shown | undefined, other: Shown | undefined): boolean {
  if (!one || !other) return one === other;
  if ("inline" in one || "inline" in other) {
    const [a, b] = ["inline" in one && one.inline, "inline" in other && other.inline];
    return a && b ? a.bytes === b.bytes && a.mimeType === b.mimeType : false;
  }
  return one.reference.blobId === other.reference.blobId && one.accessorId === other.accessorId;
}

interface Common {
  readonly storage: OpenStorage;
  readonly getToken: GetToken | undefined;
}

let common: Common | undefined;

/** What all elements of the page load with, and how they get tokens. Elements that waited for it begin. */
export function setStorage(storage: OpenStorage, getToken?: GetToken): void {
  if (typeof storage?.cached !== "function") {
    throw new OpenStorageError("InvalidOption", "pass the storage: new OpenStorage({ agent, indexCanisterId })", { option: "storage" });
  }
  common = { storage, getToken };
  for (const element of waiting) void element.load();
  waiting.clear();
}

/** The former name of {@link setStorage}. It is no hook of React, and may be called anywhere. */
export const useStorage = setStorage;

const waiting = new Set<StoredElement>();

/** Node has no elements: there the module can be imported, and does nothing. */
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

const STYLE = `
  :host { display: inline-block; position: relative; }
  :host([hidden]) { display: none; }
  [part="content"] { display: block; max-width: 100%; }
  :host(:not([state="ready"])) [part="content"] { display: none; }
  :host([state="ready"]) slot, :host([state="failed"]) slot { display: none; }
`;

let sheet: CSSStyleSheet | undefined;

/** A sheet of its own: a `<style>` would need `style-src 'unsafe-inline'` of the page. */
function styleSheet(): CSSStyleSheet {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
  }
  return sheet;
}

abstract class StoredElement extends Base {
  static readonly observedAttributes = ["alt"];
  #shown: Shown | undefined;
  #display: Display | undefined;
  #loading: AbortController | undefined;
  #content: HTMLElement | undefined;

  /** How the bytes come: downloaded and checked, or as the browser asks for them. */
  protected abstract readonly how: NonNullable<DisplayOptions["how"]>;
  protected abstract make(): HTMLElement;
  /** Shows the URL, and resolves once it is seen; rejects where the browser cannot. */
  protected abstract show(content: HTMLElement, url: string, shown: Shown): Promise<void>;

  get shown(): Shown | undefined {
    return this.#shown;
  }

  set shown(shown: Shown | undefined) {
    const isKnown = isSame(shown, this.#shown);
    this.#shown = shown;
    // A page that lists again gives the same blob with another token: nothing to load anew.
    if (isKnown && this.getAttribute("state") !== "failed") return;
    if (this.isConnected) void this.load();
  }

  connectedCallback(): void {
    void this.load();
  }

  disconnectedCallback(): void {
    waiting.delete(this);
    this.#clear();
  }

  attributeChangedCallback(): void {
    if (this.#content) this.label(this.#content);
  }

  /** Shows the same in the same element under a fresh token. False where there is none, or it opens nothing. */
  protected async refresh(): Promise<boolean> {
    const { signal } = this.#loading ?? {};
    const shown = this.#shown;
    if (!this.#content || !shown || "inline" in shown || !signal || !common?.getToken) return false;
    try {
      await this.#try(this.#content, shown, undefined, common, signal);
      return !signal.aborted;
    } catch {
      return false;
    }
  }

  /** Takes over what assistive technology is told. */
  protected label(content: HTMLElement): void {
    content.setAttribute("aria-label", this.getAttribute("alt") ?? "");
  }

  /** Shows what is to be shown, anew. */
  async load(): Promise<void> {
    this.#clear();
    const shown = this.#shown;
    const content = this.#render();
    if (!shown) return this.setAttribute("state", "empty");
    this.setAttribute("state", "loading");
    const isInline = "inline" in shown;
    if (!common && !isInline) return void waiting.add(this);
    const loading = new AbortController();
    this.#loading = loading;
    const { signal } = loading;
    try {
      if (isInline) await this.#show(content, displayInline(shown.inline, this.how), shown);
      else if (common) await this.#tryTwice(content, shown, common, signal);
      if (signal.aborted) return;
      this.setAttribute("state", "ready");
      this.dispatchEvent(new CustomEvent("ready"));
    } catch (error) {
      if (signal.aborted) return;
      this.fail(error);
    }
  }

  async #tryTwice(content: HTMLElement, shown: ShownBlob, from: Common, signal: AbortSignal): Promise<void> {
    await this.#try(content, shown, shown.token, from, signal).catch((error) => {
      // The browser does not say why it shows nothing: an expired token is the likeliest.
      if (signal.aborted || !from.getToken) throw error;
      return this.#try(content, shown, undefined, from, signal);
    });
  }

  async #try(content: HTMLElement, shown: ShownBlob, token: string | undefined, { storage, getToken }: Common, signal: AbortSignal): Promise<void> {
    const { reference, accessorId } = shown;
    const options = { accessorId, token, getToken, signal, how: this.how };
    const display = await displayBlob(storage, reference, options);
    if (signal.aborted) return display.release();
    await this.#show(content, display, shown);
  }

  async #show(content: HTMLElement, display: Display, shown: Shown): Promise<void> {
    this.#display?.release();
    this.#display = display;
    await this.show(content, display.url, shown);
  }

  /** Says why nothing is shown. */
  protected fail(error: unknown): void {
    this.setAttribute("state", "failed");
    const message = this.shadowRoot?.querySelector('[part="message"]');
    if (message) message.textContent = error instanceof Error ? error.message : String(error);
    this.dispatchEvent(new CustomEvent("failed", { detail: error }));
  }

  #clear(): void {
    this.#loading?.abort();
    this.#loading = undefined;
    this.#display?.release();
    this.#display = undefined;
  }

  #render(): HTMLElement {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    const placeholder = document.createElement("slot");
    placeholder.name = "placeholder";
    const content = this.make();
    content.setAttribute("part", "content");
    this.label(content);
    const message = document.createElement("span");
    message.setAttribute("part", "message");
    message.setAttribute("role", "status");
    root.adoptedStyleSheets = [styleSheet()];
    root.replaceChildren(placeholder, content, message);
    this.#content = content;
    return content;
  }
}

const CANNOT_SHOW = "the browser cannot show this: it is no such picture, film or sound, or the token has expired";

/** Resolves with one event of an element, rejects with another. */
function either(element: HTMLElement, good: string, bad: string): Promise<void> {
  return new Promise((resolve, reject) => {
    element.addEventListener(good, () => resolve(), { once: true });
    const failed = () => reject(new Error(CANNOT_SHOW));
    element.addEventListener(bad, failed, { once: true });
  });
}

/** An `<img>`: its bytes are downloaded, checked against the hash and kept. Attribute `alt`. */
export class StoredImage extends StoredElement {
  protected readonly how = "blob";

  protected make(): HTMLElement {
    return document.createElement("img");
  }

  protected override label(content: HTMLElement): void {
    (content as HTMLImageElement).alt = this.getAttribute("alt") ?? "";
  }

  protected async show(content: HTMLElement, url: string): Promise<void> {
    const shown = either(content, "load", "error");
    (content as HTMLImageElement).src = url;
    await shown;
  }
}

/**
 * A player: its bytes come from the bucket as they are played, from wherever the user jumps to, unless the cache has
 * them. When the token expires while it plays, it goes on under a fresh one.
 */
abstract class StoredMedia extends StoredElement {
  protected readonly how = "stream";
  /** Where the bytes stopped coming, in seconds. */
  #lostAt: number | undefined;

  protected abstract player(): HTMLMediaElement;

  protected make(): HTMLElement {
    const player = this.player();
    player.controls = true;
    player.preload = "metadata";
    return player;
  }

  protected async show(content: HTMLElement, url: string): Promise<void> {
    const player = content as HTMLMediaElement;
    const shown = either(player, "loadedmetadata", "error");
    player.src = url;
    await shown;
    player.addEventListener("error", () => void this.#goOn(player), { once: true });
  }

  /** Once for each place: what is damaged there stays so. */
  async #goOn(player: HTMLMediaElement): Promise<void> {
    const { currentTime, paused, error } = player;
    const mayPass = error?.code === MediaError.MEDIA_ERR_NETWORK && currentTime !== this.#lostAt;
    this.#lostAt = currentTime;
    if (!mayPass || !(await this.refresh())) {
      if (player.isConnected) this.fail(new Error(CANNOT_SHOW));
      return;
    }
    player.currentTime = currentTime;
    // Browsers refuse what the user has not asked for on this page.
    if (!paused) await player.play().catch(() => {});
  }
}

/** A `<video controls>`, which goes on under a fresh token when the one at hand expires. Attribute `alt`. */
export class StoredVideo extends StoredMedia {
  protected player(): HTMLVideoElement {
    const video = document.createElement("video");
    video.playsInline = true;
    return video;
  }
}

/** An `<audio controls>`, which goes on under a fresh token when the one at hand expires. Attribute `alt`. */
export class StoredAudio extends StoredMedia {
  protected player(): HTMLAudioElement {
    return document.createElement("audio");
  }
}

/** A token is younger than this when a link is followed, in milliseconds: the library cannot see when it ends. */
const LINK_AGE_MAX_MS = 3_600_000;

/**
 * A link that saves the file, or shows it in another tab where browsers show its type. It asks for a fresh
 * token when it is followed and the one in it has become old.
 */
export class StoredFile extends StoredElement {
  protected readonly how = "link";
  #atMs = 0;

  protected make(): HTMLElement {
    const link = document.createElement("a");
    link.target = "_blank";
    link.rel = "noopener";
    link.addEventListener("click", (event) => {
      const isYoung = link.protocol === "blob:" || Date.now() - this.#atMs < LINK_AGE_MAX_MS;
      if (isYoung) return;
      event.preventDefault();
      void this.refresh().then(() => {
        // As old as the token may be, it is all there is.
        this.#atMs = Date.now();
        if (link.isConnected) link.click();
      });
    });
    return link;
  }

  protected override label(): void {
    // A link is told by its text.
  }

  protected async show(content: HTMLElement, url: string, shown: Shown): Promise<void> {
    const link = content as HTMLAnchorElement;
    this.#atMs = Date.now();
    link.href = url;
    const [fallback, size] = "inline" in shown ? ["file", inlineBytes(shown.inline).byteLength] : [shown.reference.blobId, shown.reference.size];
    link.download = shown.name ?? fallback;
    link.textContent = `${shown.name ?? "file"} (${bytesText(size)})`;
  }
}

function bytesText(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  let value = bytes;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

const ELEMENTS = {
  "stored-image": StoredImage,
  "stored-video": StoredVideo,
  "stored-audio": StoredAudio,
  "stored-file": StoredFile,
};

for (const [name, element] of Object.entries(ELEMENTS)) {
  if (globalThis.customElements && !customElements.get(name)) customElements.define(name, element);
}

declare global {
  interface HTMLElementTagNameMap {
    "stored-image": StoredImage;
    "stored-video": StoredVideo;
    "stored-audio": StoredAudio;
    "stored-file": StoredFile;
  }
}
