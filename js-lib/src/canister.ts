/** Typed calls: the generated bindings on one side, a transport on the other. */

import type { ActorMethod } from "@icp-sdk/core/agent";
import { IDL, lebEncode } from "@icp-sdk/core/candid";

import { linked } from "./abort.js";
import { clock } from "./clock.js";
import { OpenStorageError } from "./errors.js";
import { Patience } from "./retry.js";
import { CallError, type Transport } from "./transport.js";

/** The arguments and the answer of a method in a generated `_SERVICE`. */
export type ArgsOf<S, M extends keyof S> = S[M] extends ActorMethod<infer A, unknown> ? A : never;
export type AnswerOf<S, M extends keyof S> =
  S[M] extends ActorMethod<infer _A, infer R> ? R : never;

/** How a call is made. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long a call that may succeed later is made again. */
  readonly patienceMs: number;
  /** Told when a call has failed and is to be made again, and when one has been answered after that. */
  onWaiting?(isWaiting: boolean): void;
}

/** Bytes that are read into a message when it is made: many of them are in memory once. */
export interface Late {
  /** Of the first argument, a record; there it is an empty vector of bytes. */
  readonly field: string;
  readonly byteLength: number;
  read(into: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** Looks on while a call is made. */
export interface Watch {
  /** So many of the message's bytes have gone out. A transport that cannot tell does not call it. */
  onSent?(sent: number, of: number): void;
  /** Called once a second; what it throws ends the call. */
  look(): void;
}

/** One attempt at a query that is not answered by then is given up and made again. */
const QUERY_TIMEOUT_MS = 30_000;
/** The same for an update: the Internet Computer answers within a few seconds, or asks to be polled. */
const UPDATE_TIMEOUT_MS = 120_000;

/** One canister with the interface `S`. */
export class Canister<S> {
  readonly #messages = new Messages();

  constructor(
    private readonly transport: Transport,
    /** In its textual form. */
    readonly id: string,
    private readonly factory: IDL.InterfaceFactory,
  ) {}

  /**
   * A call, made again while it fails in a way that may pass. The canister's own refusals, which are
   * answers, are the caller's to deal with.
   *
   * @throws `GaveUp`, `CallFailed`, `InterfaceMismatch`; the signal's reason
   */
  async call<M extends keyof S & string>(
    method: M,
    args: ArgsOf<S, M>,
    { signal, patienceMs, onWaiting }: CallOptions,
  ): Promise<AnswerOf<S, M>> {
    const patience = new Patience(patienceMs);
    for (let tries = 0; ; tries++) {
      try {
        const limitMs = this.#isQuery(method) ? QUERY_TIMEOUT_MS : UPDATE_TIMEOUT_MS;
        const answer = await this.attempt(method, args, limitMs, signal);
        if (tries > 0) onWaiting?.(false);
        return answer;
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        if (error.kind !== "transient") throw this.failed(method, error);
        onWaiting?.(true);
        await patience.pause(error, signal);
      }
    }
  }

  /**
   * A call that is made once.
   *
   * @param limit milliseconds after which it is given up, as a transient {@link CallError}; or who decides that
   * @param late a field of the first argument that is empty there, and is read into the message
   * @throws what `late` throws; {@link CallError}, `InterfaceMismatch`; the signal's reason
   */
  async attempt<M extends keyof S & string>(
    method: M,
    args: ArgsOf<S, M>,
    limit: number | Watch,
    signal?: AbortSignal,
    late?: Late,
  ): Promise<AnswerOf<S, M>> {
    const { argTypes, retTypes } = this.#method(method);
    const [first] = args as unknown[];
    const arg = late ? await this.#filled(argTypes, first as object, late) : IDL.encode(argTypes, args as unknown[]);
    const send = this.#isQuery(method) ? this.transport.query : this.transport.update;
    const watch = typeof limit === "number" ? timed(limit) : limit;
    let isAnswered = false;
    let answer: Uint8Array;
    try {
      answer = await watched(watch, signal, (both) =>
        send.call(this.transport, this.id, method, arg, both, watch.onSent),
      );
      isAnswered = true;
    } finally {
      // Without an answer it may still be on its way.
      if (late) this.#messages.give(arg, isAnswered);
    }
    try {
      return IDL.decode(retTypes, answer)[0] as AnswerOf<S, M>;
    } catch (cause) {
      throw this.#mismatch(method, cause);
    }
  }

  /**
   * Candid of arguments with a late field. The encoder copies a value once for every type around it, five times for
   * the bytes of a chunk: it is given an empty vector, and the bytes are read into their place.
   */
  async #filled(types: IDL.Type[], record: object, late: Late): Promise<Uint8Array> {
    const of = (length: number) => IDL.encode(types, [{ ...record, [late.field]: new Uint8Array(length) }]);
    const empty = of(0);
    const single = of(1);
    // The first byte that differs is the vector's length.
    const at = empty.findIndex((byte, index) => byte !== single[index]);
    const length = lebEncode(late.byteLength);
    const start = at + length.byteLength;
    const message = this.#messages.take(empty.byteLength - 1 + length.byteLength + late.byteLength);
    try {
      message.set(empty.subarray(0, at));
      message.set(length, at);
      message.set(empty.subarray(at + 1), start + late.byteLength);
      await late.read(message.subarray(start, start + late.byteLength));
      return message;
    } catch (error) {
      this.#messages.give(message, true);
      throw error;
    }
  }

  /** A call's failure as this library words it. */
  failed(method: string, cause: CallError): OpenStorageError<"CallFailed"> | OpenStorageError<"SignInRefused"> {
    const reason = cause.message;
    const fields = { canister: this.id, method, reason, ...cause.http };
    if (cause.kind === "denied") {
      const message = `the network does not accept the caller's sign-in: sign in again, and do this again (${reason})`;
      return new OpenStorageError("SignInRefused", message, fields, { cause });
    }
    const advice = cause.kind === "absent" ? `. Is ${this.id} a canister of OpenStorage, on this network? Check the ids that the app was given` : "";
    const message = `${this.id} did not take the call ${method}: ${reason}${advice}`;
    return new OpenStorageError("CallFailed", message, fields, { cause });
  }

  #isQuery(method: string): boolean {
    return this.#method(method).annotations.includes("query");
  }

  #method(name: string): IDL.FuncClass {
    const method = methodsOf(this.factory).get(name);
    if (!method) throw this.#mismatch(name, new TypeError("no such method in the bindings"));
    return method;
  }

  #mismatch(method: string, cause: unknown): OpenStorageError<"InterfaceMismatch"> {
    const fields = { canister: this.id, method };
    const message =
      `${this.id} and this library do not agree on ${method}: is it a canister of OpenStorage, and of ` +
      "the library's version?";
    return new OpenStorageError("InterfaceMismatch", message, fields, { cause });
  }
}

/**
 * Large messages. Those of a blob are of one length: while some are on their way, others are written over those that
 * have been answered, since collectors let gigabytes of them pile up.
 */
class Messages {
  #out = 0;
  #free: Uint8Array<ArrayBuffer>[] = [];

  take(byteLength: number): Uint8Array<ArrayBuffer> {
    this.#out++;
    const free = this.#free.pop();
    return free?.byteLength === byteLength ? free : new Uint8Array(byteLength);
  }

  /** @param isFree nobody else reads it any more */
  give(message: Uint8Array, isFree: boolean): void {
    this.#out--;
    if (this.#out === 0) this.#free = [];
    else if (isFree) this.#free.push(message as Uint8Array<ArrayBuffer>);
  }
}

const known = new WeakMap<IDL.InterfaceFactory, Map<string, IDL.FuncClass>>();

function methodsOf(factory: IDL.InterfaceFactory): Map<string, IDL.FuncClass> {
  let methods = known.get(factory);
  if (!methods) {
    methods = new Map(factory({ IDL })._fields);
    known.set(factory, methods);
  }
  return methods;
}

/** Ends a call after so long; time that the machine sleeps through does not count. */
function timed(limitMs: number): Watch {
  const endMs = clock.nowMs() + limitMs;
  return {
    look() {
      if (clock.nowMs() < endMs) return;
      throw new CallError("transient", `no answer within ${Math.round(limitMs / 1000)} s`);
    },
  };
}

/** What `work` brings, unless the watch ends it first; the work sees a signal for both ends. */
async function watched<T>(
  watch: Watch,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const both = linked(signal);
  const stop = clock.beats(() => {
    try {
      watch.look();
    } catch (reason) {
      both.abort(reason);
    }
  });
  try {
    return await work(both.signal);
  } finally {
    stop();
    both.release();
  }
}
