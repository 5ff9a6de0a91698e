/**
 * Uploads some random bytes, in a process of its own, and tells how far it is:
 *
 *   node patient.js URL INDEX IDENTITY ACCESSOR BYTES PATIENCE_MS
 */

import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { MemoryResumeStore, OpenStorage } from "@openstorage/client";

import { agentOf } from "./network.js";

const [url = "", index = "", identityJson = "", accessorId = "", size = "", patienceMs = ""] = process.argv.slice(2);
const agent = await agentOf(url, Ed25519KeyIdentity.fromJSON(identityJson));
const storage = new OpenStorage({ agent, indexCanisterId: index, resumeStore: new MemoryResumeStore(), cache: false, patienceMs: Number(patienceMs) });
const bytes = new Uint8Array(Number(size));
for (let at = 0; at < bytes.byteLength; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
const tell = ({ phase, bytesDone, waiting }: { phase: string; bytesDone: number; waiting: boolean }) => console.log(JSON.stringify({ phase, bytesDone, waiting }));
await storage.upload(bytes, { accessorIds: [accessorId], onProgress: tell }).done;
console.log("done");
