/** How calls reach a canister. The rest of the library knows this interface only. */

import type { HttpAgent } from "@icp-sdk/core/agent";
import type { Principal } from "@icp-sdk/core/principal";

import { CountingAgent } from "./counting-agent.js";
import { OpenStorageError } from "./errors.js";

/** Carries calls to canisters, as one caller. Arguments and answers are Candid. */
export interface Transport {
  /** As whom the calls are made. */
  principal(): Promise<Principal>;
  /** @throws {@link CallError}; the signal's reason */
  query(canister: string, method: string, arg: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
  /**
   * @param onSent to be called with how many bytes of the request have gone out, and with how many it has, where that
   * can be told
   * @throws {@link CallError}; the signal's reason
   */
  update(
    canister: string,
    method: string,
    arg: Uint8Array,
    signal?: AbortSignal,
    onSent?: (sent: number, of: number) => void,
  ): Promise<Uint8Array>;
}

/**
 * - `transient`: the same call may succeed later. Whether this one was executed is unknown.
 * - `refused`: the canister turned the call away, in most cases before executing it.
 * - `absent`: there is no such canister, or it has no such method.
 * - `denied`: the network does not accept the caller's signature or delegation: the user has to sign in again.
 * - `final`: the same call fails again.
 */
export type CallErrorKind = "transient" | "refused" | "absent" | "denied" | "final";

/** An HTTP answer that held no answer of a canister. */
export interface HttpAnswer {
  readonly status: number;
  /** Its text in one line, cut after 500 characters. */
  readonly body: string;
}

/** A call that brought no answer of the method called. */
export class CallError extends Error {
  override readonly name = "CallError";
  /** What the network answered, where that was an HTTP error. */
  readonly http: HttpAnswer | undefined;

  constructor(
    readonly kind: CallErrorKind,
    message: string,
    options?: ErrorOptions & { readonly http?: HttpAnswer | undefined },
  ) {
    super(message, options);
    this.http = options?.http;
  }
}

/** The parts of an `HttpAgent` of `@icp-sdk/core` that are used. */
export type AgentLike = Pick<HttpAgent, "getPrincipal" | "query" | "update"> &
  Partial<Pick<HttpAgent, "addTransform" | "config" | "rootKey">>;

const AGENT_METHODS = ["getPrincipal", "query", "update"] as const;

/**
 * Calls through an agent of `@icp-sdk/core`. The agent's identity is the caller.
 *
 * @throws `InvalidOption` for none, for the promise of one, and for an agent of another package or an older version
 */
export function agentTransport(agent: AgentLike | undefined): Transport {
  const missing = AGENT_METHODS.filter((name) => typeof agent?.[name] !== "function");
  if (!agent || missing.length > 0) {
    const isOther = missing.length < AGENT_METHODS.length;
    const message = isOther
      ? `this agent has no ${missing.join("() and no ")}(): pass an HttpAgent of @icp-sdk/core 6 (npm install @icp-sdk/core@6), not one of @dfinity/agent or of an older version`
      : "pass an agent of @icp-sdk/core: await HttpAgent.create({ host, identity })";
    throw new OpenStorageError("InvalidOption", message, { option: "agent" });
  }
  const signals = signalsOf(agent);
  const counting = new CountingAgent(agent);
  const updateBy = async (by: AgentLike, canister: string, methodName: string, arg: Uint8Array, signal?: AbortSignal) => {
    const { reply } = await settle(by.update(canister, { methodName, arg }), signal);
    if (reply) return reply;
    throw new CallError("final", "the network confirmed the call without an answer");
  };
  return {
    principal: () => agent.getPrincipal(),
    async query(canister, methodName, arg, signal) {
      if (signal) signals.set(arg, signal);
      const answer = await settle(agent.query(canister, { methodName, arg }), signal);
      if ("reply" in answer) return answer.reply.arg;
      throw rejected(answer.error_code, answer.reject_code, answer.reject_message);
    },
    async update(canister, methodName, arg, signal, onSent) {
      if (signal) signals.set(arg, signal);
      const own = signal && onSent && (await counting.of(arg, signal, onSent));
      try {
        return await updateBy(own ?? agent, canister, methodName, arg, signal);
      } catch (error) {
        // The app's agent may have signed in anew since it was made.
        if (!own || !(error instanceof CallError) || error.kind !== "denied") throw error;
        return await updateBy(agent, canister, methodName, arg, signal);
      }
    },
  };
}

/** By the argument of a call, which is the one thing that a transform sees of it. */
type Signals = WeakMap<Uint8Array, AbortSignal>;

const signalsOfAgents = new WeakMap<object, Signals>();

/** A request that cannot be redirected and asks nobody: `fetch` in Node needs no further copies of its body. */
const LEAN: RequestInit = { redirect: "error", window: null };

/**
 * The agent knows no signals, but spreads a transformed request into what it gives to `fetch`: so a
 * chunk that is not wanted any more leaves the wire. Without transforms the call just runs on unheard.
 *
 * The agent is the app's: a request that this library did not make passes as it is.
 */
function signalsOf(agent: AgentLike): Signals {
  const known = signalsOfAgents.get(agent);
  if (known) return known;
  const signals: Signals = new WeakMap();
  signalsOfAgents.set(agent, signals);
  for (const type of ["update", "query"] as const) {
    agent.addTransform?.(type, async (request) => {
      const signal = "arg" in request.body && signals.get(request.body.arg);
      if (signal) Object.assign(request.request, LEAN, { signal });
    });
  }
  return signals;
}

/** What the call brings, as a {@link CallError} where it fails; the signal's reason, if that comes first. */
async function settle<T>(call: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  try {
    return await orAborted(call, signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw error instanceof CallError ? error : callErrorOf(error);
  }
}

/** The promise's outcome, or the signal's reason as soon as it is aborted. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    // What comes after an abort is heard by nobody, a failure neither.
    const done = () => signal.removeEventListener("abort", abort);
    promise.then(resolve, reject).finally(done);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
  });
}

/** What the agent's errors have in common; by shape, since an app may hold two copies of the package. */
interface AgentErrorLike {
  message?: string;
  kind?: string;
  code?: {
    name?: string;
    rejectCode?: number;
    rejectErrorCode?: string;
    rejectMessage?: string;
    status?: number;
    bodyText?: string;
    error?: unknown;
  };
}

function callErrorOf(cause: unknown): CallError {
  const { code, kind, message } = cause as AgentErrorLike;
  if (code?.rejectCode !== undefined) {
    return rejected(code.rejectErrorCode, code.rejectCode, code.rejectMessage ?? "", cause);
  }
  if (code?.status !== undefined) return httpError(code.status, code.bodyText ?? "", cause);
  const text = firstLine(message ?? String(cause));
  const name = code?.name ?? "";
  if (name === IDENTITY_ENDED) return new CallError("denied", text, { cause });
  if (PASSING.includes(name)) return new CallError("transient", text, { cause });
  if (kind === "Trust") {
    const advice =
      "the answer does not carry the network's signature. For a local network create the agent " +
      "with shouldFetchRootKey: true";
    return new CallError("final", `${advice} (${text})`, { cause });
  }
  if ((code?.error as { name?: string } | undefined)?.name === "SecurityError") {
    const advice = "this browser keeps nothing for the page: create the agent with a subnetNodeKeyExpirableStore in memory";
    return new CallError("final", `${advice} (${text})`, { cause });
  }
  const mayPass = kind === "Transport" || kind === "Protocol" || kind === "Unknown";
  return new CallError(mayPass ? "transient" : "final", text, { cause });
}

/** The agent's codes for what another try may bring: a sleeping machine's clock, a node that lags behind. */
const PASSING = ["CertificateTimeErrorCode", "CertificateOutdatedErrorCode", "IngressExpiryInvalidErrorCode"];
/** The agent's code for an identity that the app has taken away. */
const IDENTITY_ENDED = "IdentityInvalidErrorCode";

/** Characters of an HTTP answer's body that an error keeps. */
const BODY_CHARS_MAX = 500;
/** Statuses with which a network answers what is not signed as it should be; the body says whether that is why. */
const UNSIGNED = [400, 401, 403];
const ABOUT_SIGNATURES = /delegation|signature|authenticat/i;

function httpError(status: number, bodyText: string, cause: unknown): CallError {
  const line = bodyText.replace(/\s+/g, " ").trim();
  const body = line.length > BODY_CHARS_MAX ? `${line.slice(0, BODY_CHARS_MAX)} …` : line;
  // A message that was too long under way is signed anew.
  const isLate = status === 400 && /request expiry/i.test(body);
  const isUnsigned = UNSIGNED.includes(status) && (status === 401 || ABOUT_SIGNATURES.test(body)) && !isLate;
  const mayPass = isLate || status >= 500 || status === 429 || status === 408;
  const kind = isUnsigned ? "denied" : mayPass ? "transient" : "final";
  return new CallError(kind, `HTTP status ${status}${body && `: ${body}`}`, { cause, http: { status, body } });
}

/** The first line tells what; the others hold requests in hex. */
function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}

/** Reject codes of the interface specification. */
const SYS_TRANSIENT = 2;
const DESTINATION_INVALID = 3;
const CANISTER_REJECT = 4;
const SYS_UNKNOWN = 6;
/** Error codes, which networks add to a reject code: a stopping and a stopped canister. */
const TRANSIENT = ["IC0508", "IC0509"];
/** Nothing installed, no such method. */
const ABSENT = ["IC0537", "IC0536"];

function rejected(
  errorCode: string | undefined,
  rejectCode: number,
  message: string,
  cause?: unknown,
): CallError {
  const text = `${message}${errorCode ? ` (${errorCode})` : ""}`;
  return new CallError(rejectKind(errorCode ?? "", rejectCode), text, { cause });
}

function rejectKind(errorCode: string, rejectCode: number): CallErrorKind {
  if (TRANSIENT.includes(errorCode)) return "transient";
  if (ABSENT.includes(errorCode) || rejectCode === DESTINATION_INVALID) return "absent";
  if (rejectCode === CANISTER_REJECT) return "refused";
  return rejectCode === SYS_TRANSIENT || rejectCode === SYS_UNKNOWN ? "transient" : "final";
}
