/** Work that is ended by a signal, or by itself. */
export interface Linked {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
  /** The work has ended: nothing hears the outer signal any more. */
  release(): void;
}

/** Node takes more than ten listeners of one signal for a leak: there is one, and it tells these. */
const followers = new WeakMap<AbortSignal, Set<() => void>>();

/** A signal within another. @throws that signal's reason, where it is aborted */
export function linked(outer: AbortSignal | undefined): Linked {
  outer?.throwIfAborted();
  const controller = new AbortController();
  const follow = () => controller.abort(outer?.reason);
  const all = outer && followersOf(outer);
  all?.add(follow);
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    release: () => void all?.delete(follow),
  };
}

function followersOf(outer: AbortSignal): Set<() => void> {
  const known = followers.get(outer);
  if (known) return known;
  const all = new Set<() => void>();
  followers.set(outer, all);
  const tell = () => {
    for (const follow of [...all]) follow();
  };
  outer.addEventListener("abort", tell, { once: true });
  return all;
}
