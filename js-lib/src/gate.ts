/** Holds an upload while it is paused. */
export class Gate {
  #closed: { promise: Promise<void>; open: () => void } | undefined;

  get isOpen(): boolean {
    return this.#closed === undefined;
  }

  close(): void {
    if (this.#closed) return;
    let open = () => {};
    const promise = new Promise<void>((resolve) => {
      open = resolve;
    });
    this.#closed = { promise, open };
  }

  open(): void {
    this.#closed?.open();
    this.#closed = undefined;
  }

  /** Resolves once the gate is open. */
  async passed(): Promise<void> {
    while (this.#closed) await this.#closed.promise;
  }
}
