/** What an agent's failures mean to the library, and that the agent stays the app's. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { HttpAgent, HttpErrorCode, ProtocolError, RejectError, UncertifiedRejectErrorCode } from "@icp-sdk/core/agent";
import type { RequestId } from "@icp-sdk/core/agent";
import { agentTransport, CallError, MemoryResumeStore, OpenStorage } from "@openstorage/client";

import { PATIENCE_MS } from "../src/retry.js";
import { failure, packageDir, pattern } from "./support.js";

interface Table {
  readonly rejects: readonly { readonly reject_code: number; readonly error_code: string | null; readonly kind: string }[];
  readonly http: readonly { readonly status: number; readonly body: string; readonly kind: string }[];
  readonly waits: { readonly patience_ms: number };
}

const table = JSON.parse(readFileSync(new URL("../tests/conformance/calls.json", packageDir), "utf8")) as Table;
const INDEX = "ryjl3-tyaaa-aaaaa-aaaba-cai";

/** An agent whose calls fail so. */
function failing(error: Error): HttpAgent {
  const agent = HttpAgent.createSync({ host: "http://localhost:1" });
  agent.query = () => Promise.reject(error);
  agent.update = () => Promise.reject(error);
  return agent;
}

async function kindOf(error: Error): Promise<CallError> {
  const transport = agentTransport(failing(error));
  const failed = await transport.update(INDEX, "user", new Uint8Array()).catch((caught: unknown) => caught);
  assert.ok(failed instanceof CallError, String(failed));
  return failed;
}

test("a call without an answer means what the table of all clients says", async () => {
  const id = new Uint8Array(32) as RequestId;
  for (const { reject_code, error_code, kind } of table.rejects) {
    const code = new UncertifiedRejectErrorCode(id, reject_code, "words", error_code ?? undefined, undefined);
    assert.equal((await kindOf(RejectError.fromCode(code))).kind, kind, `${reject_code} ${error_code}`);
  }
  for (const { status, body, kind } of table.http) {
    const failed = await kindOf(ProtocolError.fromCode(new HttpErrorCode(status, "words", [], body)));
    assert.deepEqual([failed.kind, failed.http], [kind, { status, body }], `${status} ${body}`);
  }
  assert.equal(table.waits.patience_ms, PATIENCE_MS);
});

/** A network's front door that answers every call with an error. */
async function frontDoor(status: number, body: string): Promise<{ url: string; seen: IncomingMessage[]; stop(): void }> {
  const seen: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    seen.push(request);
    request.resume().on("end", () => response.writeHead(status).end(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen, stop: () => server.close() };
}

test("an error keeps the HTTP status and body of what the network said, and no more of it than a page holds", async (t) => {
  const long = `${"x".repeat(490)} ${"y".repeat(5_000)}`;
  for (const [status, body, kept] of [[413, "too\n large", "too large"], [404, "", ""], [400, long, `${long.slice(0, 500)} …`]] as const) {
    const door = await frontDoor(status, body);
    t.after(() => door.stop());
    const agent = HttpAgent.createSync({ host: door.url, retryTimes: 0, verifyQuerySignatures: false });
    const storage = new OpenStorage({ agent, indexCanisterId: INDEX, cache: false, patienceMs: 0 });
    const reason = `HTTP status ${status}${kept && `: ${kept}`}`;
    await assert.rejects(storage.allowance(), failure("CallFailed", { canister: INDEX, method: "user", reason, status, body: kept }));
  }
});

test("a sign-in that the network does not accept says so", async () => {
  const code = new HttpErrorCode(400, "Bad Request", [], "Invalid delegation expiry: ended");
  const storage = new OpenStorage({ agent: failing(ProtocolError.fromCode(code)), indexCanisterId: INDEX, cache: false });
  await assert.rejects(storage.allowance(), (error: Error & { kind?: string; code?: string }) => {
    assert.deepEqual([error.kind, error.code], ["access", "SignInRefused"]);
    assert.match(error.message, /sign in again.*delegation expiry: ended/);
    return true;
  });
  const gone = HttpAgent.createSync({ host: "http://localhost:1" });
  gone.invalidateIdentity();
  const other = new OpenStorage({ agent: gone, indexCanisterId: INDEX, cache: false });
  await assert.rejects(other.allowance(), { kind: "access", code: "SignInRefused" });
});

test("an agent of another package or an older version is refused at once, and told what is needed", () => {
  const { query, call, getPrincipal } = HttpAgent.prototype;
  // What HttpAgent has in versions 2.4 and 3.4 of @dfinity/agent.
  const older = { query, call, getPrincipal, readState: async () => ({}), addTransform() {} };
  for (const agent of [older, { query }]) {
    const make = () => new OpenStorage({ agent: agent as never, indexCanisterId: INDEX, cache: false });
    assert.throws(make, (error: Error) => {
      assert.match(error.message, /no .*update\(\).*@icp-sdk\/core 6/);
      return failure("InvalidOption", { option: "agent" })(error);
    });
  }
});

test("the app's agent stays as the app made it, and its own requests too", async (t) => {
  /** What `fetch` is given for calls that the app makes itself, each once. */
  const requestsOf = async (given: (agent: HttpAgent) => unknown) => {
    const seen: object[] = [];
    const note: typeof fetch = async (url, init) => {
      const { body, ...rest } = init ?? {};
      seen.push({ path: new URL(String(url)).pathname, ...rest, body: typeof body });
      return new Response("no", { status: 418 });
    };
    const agent = HttpAgent.createSync({ host: "http://localhost:1", fetch: note, retryTimes: 0 });
    const before = ownState(agent);
    given(agent);
    assert.deepEqual(ownState(agent), before);
    const arg = new Uint8Array([1]);
    const errors = [
      await agent.query(INDEX, { methodName: "a", arg }).catch((error: Error) => error),
      await agent.update(INDEX, { methodName: "b", arg }).catch((error: Error) => error),
      await agent.readState({ canisterId: INDEX }, { paths: [[new TextEncoder().encode("time")]] }).catch((error: Error) => error),
    ];
    return { seen, errors: errors.map((error) => String((error as Error).message).replace(/[0-9a-f]{32,}|expiry.*/gi, "…")) };
  };
  const ownState = (agent: HttpAgent) => Object.getOwnPropertyNames(agent).map((name) => [name, (agent as never)[name]]);
  const untouched = await requestsOf(() => {});
  const used = await requestsOf((agent) => new OpenStorage({ agent, indexCanisterId: INDEX, resumeStore: new MemoryResumeStore(), cache: false }));
  assert.deepEqual(used, untouched);
  assert.ok(!untouched.errors.some((error) => error.includes("Cannot convert")), untouched.errors.join("\n"));
  t.diagnostic(JSON.stringify(untouched.seen));
});

test("a call that is not wanted any more leaves the wire", async () => {
  const signals: (AbortSignal | null | undefined)[] = [];
  const hang: typeof fetch = (_, init) => {
    signals.push(init?.signal);
    return new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(new Error("aborted"))));
  };
  const agent = HttpAgent.createSync({ host: "http://localhost:1", fetch: hang, retryTimes: 0 });
  const storage = new OpenStorage({ agent, indexCanisterId: INDEX, resumeStore: new MemoryResumeStore(), cache: false });
  const controller = new AbortController();
  const upload = storage.upload(pattern(1), { accessorIds: [INDEX], signal: controller.signal });
  upload.done.catch(() => {});
  while (!signals.some(Boolean)) await new Promise((resolve) => setTimeout(resolve, 5));
  controller.abort(new Error("closed"));
  await assert.rejects(upload.done, /closed/);
  assert.ok(signals.filter(Boolean).every((signal) => signal?.aborted));
});
