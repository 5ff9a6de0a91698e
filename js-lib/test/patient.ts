/**
 * Uploads some random bytes, in a process of its own, and tells how far it is:
 *
 *   node patient.js URL INDEX IDENTITY ACCESSOR BYTES PATIENCE_MS
 */

import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { MemoryResumeStore, OpenStorage } from "@openstorage/client";

import { agentOf } from "./network.js";
import { random } from "./random.js";

const [url = "", index = "", identityJson = "", accessorId = "", size = "", patienceMs = ""] = process.argv.slice(2);
const agent = await agentOf(url, Ed25519KeyIdentity.fromJSON(identityJson));
const storage = new OpenStorage({ agent, indexCanisterId: index, resumeStore: new MemoryResumeStore(), cache: false, patienceMs: Number(patienceMs) });
const tell = ({ phase, bytesDone, waiting }: { phase: string; bytesDone: number; waiting: boolean }) => console.log(JSON.stringify({ phase, bytesDone, waiting }));
await storage.upload(random(Number(size)), { accessorIds: [accessorId], onProgress: tell }).done;
console.log("done");
