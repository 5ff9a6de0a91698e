/** The library on lines as they are: thin, cut, and under a lid that was closed. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import type { Progress } from "@openstorage/client";

import { eventually, Network } from "./network.js";
import { Proxy } from "./proxy.js";
import { random } from "./random.js";
import { sha256 } from "./support.js";

const network = await Network.start();
after(() => network.stop());

const MB = 1_000_000;

async function line(t: { after(work: () => unknown): void }) {
  const { user, accessorId } = await network.userWithChat();
  const proxy = await Proxy.to(network.url);
  t.after(() => proxy.stop());
  return { user, accessorId, proxy, storage: await user.storage({ host: proxy.url }) };
}

test("on a thin line a chunk that takes longer than half a minute arrives, and goes once", async (t) => {
  const { accessorId, proxy, storage } = await line(t);
  // Another size has been fast before.
  await storage.upload(random(10), { accessorIds: [accessorId] }).done;
  proxy.faults = { bytesPerSecond: 20_000 };
  const before = proxy.bytesUp;
  const bytes = random(700_000);
  const reference = await storage.upload(bytes, { accessorIds: [accessorId] }).done;
  assert.equal(reference.blobId, sha256(bytes));
  assert.ok(proxy.bytesUp - before < 1.1 * bytes.byteLength, `${proxy.bytesUp - before} bytes`);
});

test("a network that is cut is told of, and the rate falls; what is done only grows", async (t) => {
  const { accessorId, proxy, storage } = await line(t);
  proxy.faults = { bytesPerSecond: 2 * MB };
  const bytes = random(20 * MB);
  const seen: Progress[] = [];
  let isCut = false;
  let isBack = false;
  const upload = storage.upload(bytes, {
    accessorIds: [accessorId],
    onProgress: (progress) => {
      if (progress.phase !== "uploading") return;
      seen.push(progress);
      const { bytesDone, bytesPerSecond, waiting } = progress;
      if (!isCut && bytesDone > 8 * MB) {
        isCut = true;
        proxy.faults = { stalled: true };
      }
      if (isCut && !isBack && waiting && bytesPerSecond === 0) {
        isBack = true;
        proxy.faults = {};
      }
    },
  });
  assert.equal((await upload.done).blobId, sha256(bytes));
  assert.ok(isBack, "the app was not told");
  assert.equal(upload.progress.waiting, false);
  seen.reduce((before, now) => {
    assert.ok(now.bytesDone >= before.bytesDone, `${now.bytesDone} after ${before.bytesDone}`);
    return now;
  });
});

test("a machine that slept longer than patience lasts has all of it after waking", async (t) => {
  const { user, accessorId, proxy } = await line(t);
  const program = fileURLToPath(new URL("patient.js", import.meta.url));
  const patienceMs = 10_000;
  const args = [program, proxy.url, network.index, JSON.stringify(user.identity.toJSON()), accessorId, String(20 * MB), String(patienceMs)];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
  proxy.faults = { bytesPerSecond: 4 * MB };
  let hasSlept = false;
  let last = "";
  for await (const said of createInterface({ input: child.stdout })) {
    last = said;
    if (hasSlept || said === "done") continue;
    const { phase, bytesDone, waiting } = JSON.parse(said) as Progress;
    if (phase === "uploading" && bytesDone > 4 * MB) {
      // Everything fails from here on.
      proxy.faults = { refuses: true };
      proxy.cut();
    }
    if (!waiting) continue;
    hasSlept = true;
    child.kill("SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, 1.5 * patienceMs));
    child.kill("SIGCONT");
    // The network is back later, when tries of all chunks have failed after waking, too.
    const before = proxy.refusals;
    void eventually("the program tries again", async () => (proxy.refusals >= before + 8 ? true : undefined)).finally(() => {
      proxy.faults = {};
    });
  }
  assert.deepEqual([hasSlept, last, await ended], [true, "done", 0]);
});
