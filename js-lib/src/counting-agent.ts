/**
 * An agent of this library's own beside the app's, which stays as it is: of the same identity and network, with a `fetch`
 * that tells how many bytes of a request have gone out.
 */

import { HttpAgent, type HttpAgentOptions, type HttpAgentRequest } from "@icp-sdk/core/agent";

/** What an app's agent tells of itself, where it is an `HttpAgent`. */
export interface Told {
  readonly update: unknown;
  readonly call?: unknown;
  readonly config?: HttpAgentOptions;
  rootKey?: Uint8Array | null;
  getPrincipal(): Promise<{ toText(): string }>;
  /** What the app has added to requests. */
  _transform?(request: HttpAgentRequest): Promise<HttpAgentRequest>;
}

/** Called with the bytes of a request that have gone out, and with all of them. */
export type OnSent = (sent: number, of: number) => void;

type Fetch = (url: string | URL | Request, init?: RequestInit) => Promise<Response>;

interface Own {
  readonly agent: HttpAgent;
  /** Of the app's agent, when this one was made. */
  readonly rootKey: Uint8Array;
}

export class CountingAgent {
  #own: Own | undefined;
  /** By the argument of a call, as the agent's transforms see it; then by the signal, as `fetch` does. */
  readonly #calls = new WeakMap<Uint8Array, { signal: AbortSignal; onSent: OnSent }>();
  readonly #listeners = new WeakMap<AbortSignal, OnSent>();

  constructor(private readonly app: Told) {}

  /**
   * The agent, which tells `onSent` of the call with this argument.
   *
   * `undefined` where it cannot stand for the app's: that one is no plain `HttpAgent`, has a `fetch` or options of requests
   * of its own, has been given another identity, or the platform does not tell what goes out.
   */
  async of(arg: Uint8Array, signal: AbortSignal, onSent: OnSent): Promise<HttpAgent | undefined> {
    const agent = this.#agent();
    if (!agent) return undefined;
    const [own, app] = await Promise.all([agent.getPrincipal(), this.app.getPrincipal()]);
    if (own.toText() !== app.toText()) return undefined;
    this.#calls.set(arg, { signal, onSent });
    return agent;
  }

  #agent(): HttpAgent | undefined {
    const { config, rootKey, update, call, _transform } = this.app;
    const isPlain = update === HttpAgent.prototype.update && call === HttpAgent.prototype.call;
    if (!isPlain || !config || !rootKey || !_transform || config.fetch || config.callOptions) return undefined;
    if (this.#own?.rootKey === rootKey) return this.#own.agent;
    const send = sender();
    if (!send) return undefined;
    const fetch: Fetch = (url, init = {}) => {
      const onSent = init.signal && this.#listeners.get(init.signal);
      if (!onSent || !(init.body instanceof Uint8Array)) return globalThis.fetch(url, init);
      // It may wait for a connection.
      onSent(0, init.body.byteLength);
      return send(url, init, init.body as Bytes, onSent);
    };
    // Whoever counts the bytes decides when they are sent again.
    const agent = HttpAgent.createSync({ ...config, rootKey, shouldFetchRootKey: false, fetch, retryTimes: 0 });
    agent.addTransform("update", async (request) => {
      const transformed = (await this.app._transform?.(request)) ?? request;
      const call = "arg" in transformed.body && this.#calls.get(transformed.body.arg);
      if (call) {
        this.#listeners.set(call.signal, call.onSent);
        Object.assign(transformed.request, { signal: call.signal });
      }
      return transformed;
    });
    this.#own = { agent, rootKey };
    return agent;
  }
}

type Bytes = Uint8Array<ArrayBuffer>;
type Send = (url: string | URL | Request, init: RequestInit, body: Bytes, onSent: OnSent) => Promise<Response>;

/** How this platform sends bytes that it counts. Service workers, for one, have no way. */
function sender(): Send | undefined {
  if (typeof XMLHttpRequest === "function") return sendByXhr;
  const { process } = globalThis as { process?: { versions?: { node?: string } } };
  return process?.versions?.node ? sendAsStream : undefined;
}

const PIECE_BYTES = 65_536;

/** Streamed, so that nothing copies the bytes, either. */
function sendAsStream(url: string | URL | Request, init: RequestInit, body: Bytes, onSent: OnSent): Promise<Response> {
  let sent = 0;
  const stream = new ReadableStream<Bytes>(
    {
      // Asked for the next piece once the one before has gone.
      pull(controller) {
        if (sent > 0) onSent(sent, body.byteLength);
        if (sent === body.byteLength) return controller.close();
        const piece = body.subarray(sent, sent + PIECE_BYTES);
        sent += piece.byteLength;
        controller.enqueue(piece);
      },
    },
    { highWaterMark: 0 },
  );
  const headers = { ...(init.headers as Record<string, string>), "content-length": String(body.byteLength) };
  const streamed = { ...init, headers, body: stream, duplex: "half", redirect: "error" };
  return fetch(url, streamed as RequestInit);
}

/** `fetch` of browsers tells nothing of what goes out. */
function sendByXhr(url: string | URL | Request, init: RequestInit, body: Bytes, onSent: OnSent): Promise<Response> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(init.method ?? "POST", String(url));
    request.responseType = "arraybuffer";
    new Headers(init.headers).forEach((value, name) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => onSent(loaded, total);
    request.onload = () => resolve(responseOf(request));
    request.onerror = () => reject(new TypeError(`the connection to ${String(url)} failed`));
    request.onabort = () => reject(init.signal?.reason);
    init.signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(body);
  });
}

function responseOf(request: XMLHttpRequest): Response {
  const headers = new Headers();
  for (const line of request.getAllResponseHeaders().trim().split("\r\n")) {
    const [name = "", value = ""] = line.split(/: (.*)/s);
    if (name) headers.append(name, value);
  }
  const { status, statusText, response } = request;
  const hasBody = ![101, 204, 205, 304].includes(status);
  const answer = new Response(hasBody ? response : null, { status, statusText, headers });
  // The agent looks at it where a method of the protocol is missing.
  return Object.defineProperty(answer, "url", { value: request.responseURL });
}
