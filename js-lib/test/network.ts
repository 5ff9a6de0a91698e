/**
 * The deployed canisters on a local network, for the tests: the Wasm that is deployed, the server that
 * `POCKET_IC_BIN` names. Where a variable is missing, `cargo xtask` builds what it would name.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { Actor, type ActorSubclass, HttpAgent } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { Principal } from "@icp-sdk/core/principal";
import { MemoryCacheStore, MemoryResumeStore, OpenStorage, type OpenStorageOptions } from "@openstorage/client";
import { type _SERVICE as Chat, type ChatInfo, idlFactory as chatFactory } from "@openstorage/client/candid/chat";
import { type _SERVICE as Index, idlFactory as indexFactory, type IndexStatus } from "@openstorage/client/candid/index";

import { packageDir } from "./support.js";

const root = fileURLToPath(new URL("..", packageDir));

function xtask(word: string): string {
  const output = execFileSync("cargo", ["xtask", word], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  return output.trim().split("\n").at(-1) ?? "";
}

function serverPath(): string {
  return process.env["POCKET_IC_BIN"] ?? xtask("server-path");
}

function wasmDir(): string {
  const dir = process.env["OPENSTORAGE_WASM_DIR"];
  if (dir) return dir;
  xtask("build");
  return join(root, "target/canisters");
}

/** Waits until `look` sees something; five times what is typical, then it is a failure. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 600; tries++) {
    const seen = await look();
    if (seen !== undefined) return seen;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`still not so after 30 s: ${what}`);
}

/** Somebody with an identity. */
export interface User {
  readonly identity: Ed25519KeyIdentity;
  readonly agent: HttpAgent;
  readonly chat: ActorSubclass<Chat>;
  storage(options?: Partial<OpenStorageOptions> & { host?: string }): Promise<OpenStorage>;
}

/** What the canisters are installed with; for tests that need something else than operators do. */
interface Init {
  readonly bucketBytesMax?: number;
  /** Where else the chat's page is served. */
  readonly origins?: readonly string[];
}

export class Network {
  readonly index: string;
  readonly chat: string;

  private constructor(
    private readonly server: ChildProcess,
    private readonly dir: string,
    /** Where calls and HTTP go. */
    readonly url: string,
    /** Where the instance itself is ruled, as PocketIC's clients do. */
    private readonly rule: string,
    ids: { index: string; chat: string },
  ) {
    this.index = ids.index;
    this.chat = ids.chat;
  }

  static async start(init: Init = {}): Promise<Network> {
    const dir = await mkdtemp(join(tmpdir(), "openstorage-net-"));
    const portFile = join(dir, "port");
    const server = spawn(serverPath(), ["--port-file", portFile, "--ttl", "3600"], { stdio: "ignore" });
    try {
      const port = await eventually("the server listens", async () => {
        const text = await readFile(portFile, "utf8").catch(() => "");
        return text.endsWith("\n") ? text.trim() : undefined;
      });
      const { url, rule } = await instance(`http://127.0.0.1:${port}`);
      const ids = await deploy(url, init);
      const network = new Network(server, dir, url, rule, ids);
      await network.#settled();
      return network;
    } catch (error) {
      server.kill();
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.server.kill();
    await rm(this.dir, { recursive: true, force: true });
  }

  /**
   * Sets the network's clock so far ahead of the wall's. Agents that are to go on need `syncTime`; the gateway
   * believes no certificate of the future, so that only its raw route serves from then on.
   */
  async skip(ms: number): Promise<void> {
    const nanos = BigInt(Date.now() + ms) * 1_000_000n;
    const response = await fetch(`${this.rule}/update/set_time`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: `{"nanos_since_epoch":${nanos}}`,
    });
    if (!response.ok) throw new Error(`the time was not set: ${response.status} ${await response.text()}`);
  }

  /** A user whom nobody has registered. */
  async stranger(host = this.url): Promise<User> {
    const identity = Ed25519KeyIdentity.generate();
    const agent = await agentOf(host, identity);
    const chat = Actor.createActor<Chat>(chatFactory, { agent, canisterId: this.chat });
    return {
      identity,
      agent,
      chat,
      storage: async ({ host: other, ...options } = {}) =>
        new OpenStorage({
          agent: other ? await agentOf(other, identity) : agent,
          indexCanisterId: this.index,
          resumeStore: new MemoryResumeStore(),
          cache: new MemoryCacheStore(),
          ...options,
        }),
    };
  }

  /** A user whom the chat has registered. */
  async user(): Promise<User> {
    const user = await this.stranger();
    await user.chat.register();
    await eventually("the index has confirmed the user", async () => {
      const me = await user.chat.me();
      return "Ok" in me && me.Ok.confirmed ? true : undefined;
    });
    return user;
  }

  /** A registered user with a chat of its own. */
  async userWithChat(): Promise<{ user: User; chat: ChatInfo; accessorId: string }> {
    const user = await this.user();
    const answer = await user.chat.create_chat({ name: "tests" });
    if ("Err" in answer) throw new Error(JSON.stringify(answer.Err));
    return { user, chat: answer.Ok, accessorId: answer.Ok.accessor_id.toText() };
  }

  /** Lets an admin of the index change what a user may store; with `isFixed` the app cannot change it again. */
  async setLimit(user: Pick<User, "identity">, byteLimit: number, { isFixed = false } = {}): Promise<void> {
    const agent = await agentOf(this.url, operator);
    const index = Actor.createActor<Index>(indexFactory, { agent, canisterId: this.index });
    const args = { user: user.identity.getPrincipal(), byte_limit: BigInt(byteLimit) };
    const answer = await (isFixed ? index.update_user(args) : index.register_user(args));
    if ("Err" in answer) throw new Error(JSON.stringify(answer.Err));
  }

  /** Gives the buckets so many cycles more than the index does: what is stored is charged for the time to come, too. */
  async topUp(cycles: bigint): Promise<void> {
    const agent = await agentOf(this.url, operator);
    for (const { bucket: canister_id } of (await this.status()).buckets) {
      const arg = IDL.encode([TOP_UP], [{ canister_id, amount: cycles }]);
      await agent.update("aaaaa-aa", { methodName: "provisional_top_up_canister", arg, effectiveTarget: { canisterId: canister_id } });
    }
  }

  async status(): Promise<IndexStatus> {
    const agent = await agentOf(this.url, operator);
    return Actor.createActor<Index>(indexFactory, { agent, canisterId: this.index }).status();
  }

  async #settled(): Promise<void> {
    const agent = await agentOf(this.url, operator);
    const index = Actor.createActor<Index>(indexFactory, { agent, canisterId: this.index });
    await eventually("the index has an active bucket and trusts the chat", async () => {
      const { buckets } = await index.status();
      const issuers = await index.issuers();
      return buckets.some(({ state }) => "Active" in state) && issuers.length > 0 ? true : undefined;
    });
  }
}

/** A token for what the chat's last message shows. */
export async function tokenFor(user: User, chatId: bigint): Promise<{ token: string; accessorId: string }> {
  return eventually("the chat has the bucket's key", async () => {
    const answer = await user.chat.messages({ chat_id: chatId, after: [], before: [], limit: 1000 });
    const access = "Ok" in answer ? answer.Ok.at(-1)?.blob[0] : undefined;
    const token = access?.token[0];
    return access && token ? { token, accessorId: access.accessor_id.toText() } : undefined;
  });
}

export const operator = Ed25519KeyIdentity.generate(new Uint8Array(32).fill(7));

export function agentOf(host: string, identity: Ed25519KeyIdentity): Promise<HttpAgent> {
  return HttpAgent.create({ host, identity, shouldFetchRootKey: true });
}

async function post(url: string, body: unknown): Promise<unknown> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** An instance of one application subnet, live; the URLs of its gateway and of itself. */
async function instance(server: string): Promise<{ url: string; rule: string }> {
  const spec = { state_config: "New", instruction_config: "Production", subnet_admins: null, cost_schedule: "Normal" };
  const none = { nns: null, sns: null, ii: null, fiduciary: null, bitcoin: null, test_threshold_keys: null };
  const subnets = { ...none, system: [], application: [spec], cloud_engine: [], verified_application: [] };
  const created = (await post(`${server}/instances`, {
    subnet_config_set: subnets,
    http_gateway_config: null,
    state_dir: null,
    icp_config: null,
    log_level: null,
    bitcoind_addr: null,
    dogecoind_addr: null,
    icp_features: null,
    incomplete_state: null,
    initial_time: { AutoProgress: { artificial_delay_ms: null } },
    mainnet_nns_subnet_id: null,
    disable_ingress_validation: null,
  })) as { Created: { instance_id: number } };
  const gateway = (await post(`${server}/http_gateway`, {
    ip_addr: null,
    port: null,
    forward_to: { PocketIcInstance: created.Created.instance_id },
    domains: null,
    https_config: null,
    domain_custom_provider_local_file: null,
  })) as { Created: { port: number } };
  const rule = `${server}/instances/${created.Created.instance_id}`;
  return { url: `http://127.0.0.1:${gateway.Created.port}`, rule };
}

const CREATE = IDL.Record({ amount: IDL.Opt(IDL.Nat), settings: IDL.Opt(IDL.Null), specified_id: IDL.Opt(IDL.Principal) });
const TOP_UP = IDL.Record({ canister_id: IDL.Principal, amount: IDL.Nat });
const MODE = IDL.Variant({ install: IDL.Null });
const INSTALL = IDL.Record({ mode: MODE, canister_id: IDL.Principal, wasm_module: IDL.Vec(IDL.Nat8), arg: IDL.Vec(IDL.Nat8) });

async function deploy(url: string, { bucketBytesMax, origins }: Init) {
  const agent = await agentOf(url, operator);
  const topology = (await (await fetch(`${url}/_/topology`)).json()) as { default_effective_canister_id: { canister_id: string } };
  const effective = Principal.fromUint8Array(Buffer.from(topology.default_effective_canister_id.canister_id, "base64"));
  const manage = async (methodName: string, arg: Uint8Array, canisterId: Principal) =>
    (await agent.update("aaaaa-aa", { methodName, arg, effectiveTarget: { canisterId } })).reply ?? new Uint8Array();
  const create = async () => {
    const cycles = 1_000_000_000_000_000n;
    const arg = IDL.encode([CREATE], [{ amount: [cycles], settings: [], specified_id: [] }]);
    const reply = await manage("provisional_create_canister_with_cycles", arg, effective);
    const [{ canister_id: id }] = IDL.decode([IDL.Record({ canister_id: IDL.Principal })], reply) as unknown as [{ canister_id: Principal }];
    return id;
  };
  const install = async (id: Principal, name: string, arg: Uint8Array) => {
    const wasm_module = await readFile(join(wasmDir(), `${name}.wasm.gz`));
    const args = { mode: { install: null }, canister_id: id, wasm_module, arg };
    await manage("install_code", IDL.encode([INSTALL], [args]), id);
  };
  const index = await create();
  const chat = await create();
  const indexInit = IDL.Opt(IDL.Record({ admins: IDL.Vec(IDL.Principal), bucket_bytes_max: IDL.Opt(IDL.Nat64) }));
  const bytesMax = bucketBytesMax === undefined ? [] : [BigInt(bucketBytesMax)];
  await install(index, "index", IDL.encode([indexInit], [[{ admins: [], bucket_bytes_max: bytesMax }]]));
  const chatInit = IDL.Record({ index: IDL.Principal, origins: IDL.Opt(IDL.Vec(IDL.Text)) });
  await install(chat, "chat", IDL.encode([chatInit], [{ index, origins: origins ? [origins] : [] }]));
  return { index: index.toText(), chat: chat.toText() };
}
