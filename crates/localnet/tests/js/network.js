// A server with one instance that follows the wall clock, and a canister on it.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Actor, HttpAgent } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import { Principal } from "@icp-sdk/core/principal";
import wabt from "wabt";

const SERVER = process.env.POCKET_IC_BIN;
const START_MS_MAX = 30_000;

/** The first canister id of a network: any id says which subnet shall make a canister. */
const ANYWHERE = Principal.fromText("rwlgt-iiaaa-aaaaa-aaaaa-cai");

/** Starts a server; `stop` ends it. `gateway` is where agents go. */
export async function start() {
  if (SERVER === undefined) throw new Error("POCKET_IC_BIN names no server");
  const folder = await mkdtemp(join(tmpdir(), "localnet-"));
  const portFile = join(folder, "port");
  const server = spawn(SERVER, ["--port-file", portFile], { stdio: "ignore" });
  const url = `http://127.0.0.1:${await port(portFile)}`;
  const subnet = {
    state_config: "New",
    instruction_config: "Production",
    subnet_admins: null,
    cost_schedule: "Normal",
  };
  const made = await post(`${url}/instances`, {
    subnet_config_set: {
      nns: subnet,
      sns: null,
      ii: null,
      fiduciary: null,
      bitcoin: null,
      test_threshold_keys: null,
      system: [],
      application: [subnet],
      cloud_engine: [],
      verified_application: [],
    },
  });
  const id = made.Created.instance_id;
  await post(`${url}/instances/${id}/auto_progress`, { artificial_delay_ms: null });
  const gateway = await post(`${url}/http_gateway`, {
    ip_addr: null,
    port: null,
    forward_to: { PocketIcInstance: id },
    domains: null,
    https_config: null,
    domain_custom_provider_local_file: null,
  });
  return {
    gateway: `http://127.0.0.1:${gateway.Created.port}`,
    topology: await (await fetch(`${url}/instances/${id}/_/topology`)).json(),
    async stop() {
      server.kill("SIGTERM");
      await rm(folder, { recursive: true });
    },
  };
}

async function port(file) {
  for (let waited = 0; waited < START_MS_MAX; waited += 20) {
    const text = await readFile(file, "utf8").catch(() => "");
    if (text.endsWith("\n")) return Number(text);
    await sleep(20);
  }
  throw new Error("the server did not start");
}

async function post(url, body) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url} answers ${response.status}: ${await response.text()}`);
  return response.json();
}

/** An agent that asks the network for its root key and verifies everything else by it. */
export function agent(host, identity) {
  return HttpAgent.create({
    host,
    identity,
    shouldFetchRootKey: true,
    verifyQuerySignatures: true,
    retryTimes: 0,
  });
}

/** Makes a canister with the test's code, through the management canister, as any client does. */
export async function install(agent, topology) {
  const management = Actor.createActor(
    () =>
      IDL.Service({
        provisional_create_canister_with_cycles: IDL.Func(
          [IDL.Record({ amount: IDL.Opt(IDL.Nat) })],
          [IDL.Record({ canister_id: IDL.Principal })],
          [],
        ),
        install_code: IDL.Func(
          [
            IDL.Record({
              mode: IDL.Variant({ install: IDL.Null }),
              canister_id: IDL.Principal,
              wasm_module: IDL.Vec(IDL.Nat8),
              arg: IDL.Vec(IDL.Nat8),
            }),
          ],
          [],
          [],
        ),
      }),
    {
      agent,
      canisterId: Principal.managementCanister(),
      callTransform: (_method, args) => ({
        effectiveCanisterId: args[0]?.canister_id ?? effective(topology),
      }),
    },
  );
  const { canister_id } = await management.provisional_create_canister_with_cycles({ amount: [] });
  const wasm_module = await code();
  await management.install_code({ mode: { install: null }, canister_id, wasm_module, arg: [] });
  return canister_id;
}

/** Where a network wants new canisters. */
function effective(topology) {
  const base64 = topology.default_effective_canister_id?.canister_id;
  return base64 ? Principal.fromUint8Array(Buffer.from(base64, "base64")) : ANYWHERE;
}

async function code() {
  const text = await readFile(new URL("../agents/canister.wat", import.meta.url), "utf8");
  const { parseWat } = await wabt();
  return new Uint8Array(parseWat("canister.wat", text).toBinary({}).buffer);
}

/** The test canister, typed. */
export function canister(agent, canisterId) {
  const principal = IDL.Func([], [IDL.Principal], []);
  const interfaceFactory = () =>
    IDL.Service({
      count: IDL.Func([], [IDL.Nat32], ["query"]),
      bump: IDL.Func([], [IDL.Nat32], []),
      caller: IDL.Func([], [IDL.Principal], ["query"]),
      caller_of_update: principal,
      no: principal,
    });
  return Actor.createActor(interfaceFactory, { agent, canisterId });
}
