/** How calls reach a canister. The rest of the library knows this interface only. */

import type { HttpAgent } from "@icp-sdk/core/agent";
import type { Principal } from "@icp-sdk/core/principal";

import { OpenStorageError } from "./errors.js";

/** Carries calls to canisters, as one caller. Arguments and answers are Candid. */
export interface Transport {
  /** As whom the calls are made. */
  principal(): Promise<Principal>;
  /** @throws {@link CallError}; the signal's reason */
  query(canister: string, method: string, arg: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
  /** @throws {@link CallError}; the signal's reason */
  update(canister: string, method: string, arg: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
}

/**
 * - `transient`: the same call may succeed later. Whether this one was executed is unknown.
 * - `refused`: the canister turned the call away before executing it.
 * - `absent`: there is no such canister, or it has no such method.
 * - `final`: the same call fails again.
 */
export type CallErrorKind = "transient" | "refused" | "absent" | "final";

/** A call that brought no answer of the method called. */
export class CallError extends Error {
  override readonly name = "CallError";

  constructor(
    readonly kind: CallErrorKind,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The parts of an `HttpAgent` of `@icp-sdk/core` that are used. */
export type AgentLike = Pick<HttpAgent, "getPrincipal" | "query" | "update"> &
  Partial<Pick<HttpAgent, "addTransform">>;

/**
 * Calls through an agent of `@icp-sdk/core`. The agent's identity is the caller.
 *
 * @throws `InvalidOption` for none, or for the promise of one
 */
export function agentTransport(agent: AgentLike | undefined): Transport {
  if (typeof agent?.query !== "function") {
    const message = "pass an agent: await HttpAgent.create({ host, identity })";
    throw new OpenStorageError("InvalidOption", message, { option: "agent" });
  }
  const signals = signalsOf(agent);
  return {
    principal: () => agent.getPrincipal(),
    async query(canister, methodName, arg, signal) {
      if (signal) signals.set(arg, signal);
      const answer = await settle(agent.query(canister, { methodName, arg }), signal);
      if ("reply" in answer) return answer.reply.arg;
      throw rejected(answer.error_code, answer.reject_code, answer.reject_message);
    },
    async update(canister, methodName, arg, signal) {
      if (signal) signals.set(arg, signal);
      const { reply } = await settle(agent.update(canister, { methodName, arg }), signal);
      if (reply) return reply;
      throw new CallError("final", "the network confirmed the call without an answer");
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
 */
function signalsOf(agent: AgentLike): Signals {
  const known = signalsOfAgents.get(agent);
  if (known) return known;
  const signals: Signals = new WeakMap();
  signalsOfAgents.set(agent, signals);
  for (const type of ["update", "query"] as const) {
    agent.addTransform?.(type, async (request) => {
      const init = request.request as RequestInit;
      const signal = "arg" in request.body && signals.get(request.body.arg);
      if (signal) init.signal = signal;
      Object.assign(init, LEAN);
      return request;
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
    error?: unknown;
    isCertified?: boolean;
  };
}

function callErrorOf(cause: unknown): CallError {
  const { code, kind, message } = cause as AgentErrorLike;
  if (code?.rejectCode !== undefined) {
    return rejected(code.rejectErrorCode, code.rejectCode, code.rejectMessage ?? "", cause);
  }
  const text = firstLine(message ?? String(cause));
  if (kind === "Trust" && !OUTDATED.includes(code?.name ?? "")) {
    const advice =
      "the answer does not carry the network's signature. For a local network create the agent " +
      "with shouldFetchRootKey: true";
    return new CallError("final", `${advice} (${text})`, { cause });
  }
  if ((code?.error as { name?: string } | undefined)?.name === "SecurityError") {
    const advice = "this browser keeps nothing for the page: create the agent with a subnetNodeKeyExpirableStore in memory";
    return new CallError("final", `${advice} (${text})`, { cause });
  }
  const status = code?.status;
  if (status !== undefined) {
    const mayPass = status >= 500 || status === 429 || status === 408;
    return new CallError(mayPass ? "transient" : "final", text, { cause });
  }
  const mayPass = kind === "Trust" || kind === "Transport" || kind === "Protocol" || kind === "Unknown";
  return new CallError(mayPass ? "transient" : "final", text, { cause });
}

/** Certificates that are too old or too new: a sleeping machine, a node that lags behind. */
const OUTDATED = ["CertificateTimeErrorCode", "CertificateOutdatedErrorCode"];

/** The first line tells what; the others hold requests in hex. */
function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}

/** Codes of the Internet Computer for what passes: a stopping and a stopped canister. */
const TRANSIENT = ["IC0508", "IC0509"];
/** The code for a message that `canister_inspect_message` did not accept. */
const NOT_ACCEPTED = "IC0516";
/** No canister, none installed, no such method. */
const ABSENT = ["IC0301", "IC0537", "IC0536"];

function rejected(
  errorCode: string | undefined,
  rejectCode: number,
  message: string,
  cause?: unknown,
): CallError {
  const text = `${message}${errorCode ? ` (${errorCode})` : ""}`;
  if (errorCode === NOT_ACCEPTED) return new CallError("refused", text, { cause });
  if (ABSENT.includes(errorCode ?? "")) return new CallError("absent", text, { cause });
  // Reject code 2 is SYS_TRANSIENT, 6 SYS_UNKNOWN.
  const mayPass = rejectCode === 2 || rejectCode === 6 || TRANSIENT.includes(errorCode ?? "");
  return new CallError(mayPass ? "transient" : "final", text, { cause });
}
