/**
 * Uploads one file in a process of its own, and tells how far its memory rose above idle:
 *
 *   node upload-file.js URL INDEX IDENTITY ACCESSOR FILE
 */

import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { MemoryResumeStore, OpenStorage } from "@openstorage/client";
import { fileSource } from "@openstorage/client/node";

import { agentOf } from "../network.js";

const [url = "", index = "", identityJson = "", accessorId = "", path = ""] = process.argv.slice(2);
const agent = await agentOf(url, Ed25519KeyIdentity.fromJSON(identityJson));
const storage = new OpenStorage({ agent, indexCanisterId: index, resumeStore: new MemoryResumeStore(), cache: false });
// Modules are loaded, a call has been made: this is what a program has that does nothing.
await storage.allowance();
const small = new Uint8Array(3_000_000).fill(Math.floor(Math.random() * 256));
small.set(crypto.getRandomValues(new Uint8Array(32)));
await storage.upload(small, { accessorIds: [accessorId] }).done;
globalThis.gc?.();
await new Promise((resolve) => setTimeout(resolve, 500));
const idle = process.memoryUsage.rss();
let peak = idle;
const timer = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss());
}, 20);
const began = performance.now();
await storage.upload(await fileSource(path), { accessorIds: [accessorId] }).done;
clearInterval(timer);
console.log(JSON.stringify({ idle, peak, ms: performance.now() - began }));
