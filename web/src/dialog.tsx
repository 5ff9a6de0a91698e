/** The browser's own modal dialog: it holds the focus, closes with Escape and Back, and gives the focus back. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { words } from "./words.js";

interface DialogProps {
  class: string;
  label: string;
  onClose: () => void;
  /** Once it is closed, and its place in the browser's history is left. */
  onLeft?: () => void;
  children: ComponentChildren;
}

/** What a place in the browser's history holds while a dialog is open. */
const OPEN = { dialog: true };

export function Dialog({ class: name, label, onClose, onLeft, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = element.current;
    dialog?.showModal();
    // Back closes it, and leaves the room open.
    history.pushState(OPEN, "");
    const close = () => dialog?.close();
    addEventListener("popstate", close);
    return () => {
      removeEventListener("popstate", close);
      const left = () => onLeft?.();
      if (!history.state?.dialog) return left();
      addEventListener("popstate", left, { once: true });
      history.back();
    };
  }, []);
  // A click beside its content hits the dialog itself.
  const click = (event: MouseEvent) => event.target === element.current && element.current?.close();
  return (
    <dialog ref={element} class={name} aria-label={label} onClose={onClose} onClick={click}>
      {children}
    </dialog>
  );
}

interface Question {
  readonly text: string;
  /** What the button says that does it. */
  readonly verb: string;
  readonly act: () => void;
}

const question = signal<Question | undefined>(undefined);

/** Asks before something is done that cannot be undone. */
export function ask(text: string, verb: string, act: () => void): void {
  question.value = { text, verb, act };
}

export function Asking() {
  const now = question.value;
  return now && <Question key={now.text} {...now} />;
}

function Question(now: Question) {
  const isWanted = useRef(false);
  const close = () => (question.value = undefined);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    isWanted.current = true;
    (event.currentTarget as HTMLElement).closest("dialog")?.close();
  };
  return (
    <Dialog class="ask" label={now.verb} onClose={close} onLeft={() => isWanted.current && now.act()}>
      <form onSubmit={submit}>
        <p dir="auto">{now.text}</p>
        <div class="buttons">
          <button class="main danger" autofocus>{now.verb}</button>
          <button type="button" onClick={(event) => event.currentTarget.closest("dialog")?.close()}>{words.cancel}</button>
        </div>
      </form>
    </Dialog>
  );
}
