// Uploads a file, posts it in a chat, downloads it again:
//
//   node upload.mjs --host http://localhost:4943 --index ID --chat ID FILE
//
// Interrupt it in the middle and start it again: it goes on where it was.

import { readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";

import { Actor, HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { isOpenStorageError, OpenStorage, referenceToCandid } from "@openstorage/client";
import { idlFactory } from "@openstorage/client/candid/chat";
import { downloadToFile, fileSource } from "@openstorage/client/node";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    host: { type: "string", default: "http://localhost:4943" },
    index: { type: "string" },
    chat: { type: "string" },
    identity: { type: "string", default: ".identity.json" },
    type: { type: "string", default: "application/octet-stream" },
    out: { type: "string" },
  },
});
const [path] = positionals;
if (!path || !values.index || !values.chat) {
  console.error("usage: node upload.mjs --host URL --index ID --chat ID FILE");
  process.exit(2);
}

// An identity for development, kept beside the program.
function identityFrom(file) {
  try {
    return Ed25519KeyIdentity.fromJSON(readFileSync(file, "utf8"));
  } catch {
    const identity = Ed25519KeyIdentity.generate();
    writeFileSync(file, JSON.stringify(identity.toJSON()), { mode: 0o600 });
    return identity;
  }
}

function ok(answer) {
  if ("Ok" in answer) return answer.Ok;
  throw new Error(`the chat answers ${Object.keys(answer.Err)[0]}`);
}

try {
  const identity = identityFrom(values.identity);
  const agent = await HttpAgent.create({ host: values.host, identity, shouldFetchRootKey: true });
  const chat = Actor.createActor(idlFactory, { agent, canisterId: values.chat });
  const storage = new OpenStorage({ agent, indexCanisterId: values.index });

  ok(await chat.register());
  while (!ok(await chat.me()).confirmed) await new Promise((resolve) => setTimeout(resolve, 200));
  const [room] = await chat.chats();
  const { chat_id, accessor_id } = room ?? ok(await chat.create_chat({ name: "example" }));

  const upload = storage.upload(await fileSource(path), {
    accessorIds: [accessor_id],
    name: basename(path),
    mimeType: values.type,
  });
  for await (const { phase, bytesDone, bytesTotal, bytesPerSecond } of upload) {
    const percent = bytesTotal === 0 ? 100 : Math.floor((100 * bytesDone) / bytesTotal);
    process.stderr.write(`\r${phase} ${percent} %, ${(bytesPerSecond / 1e6).toFixed(1)} MB/s   `);
  }
  const reference = await upload.done;
  console.error("");
  const { message_id } = ok(await chat.send_message({ chat_id, text: "", blob: [referenceToCandid(reference)], name: [], preview: [] }));

  const token = async () => {
    for (;;) {
      const [message] = ok(await chat.messages({ chat_id, after: [message_id - 1n], before: [], limit: 1 }));
      const issued = message?.blob[0]?.token[0];
      if (issued) return issued;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  if (values.out) await downloadToFile(storage, reference, values.out, { accessorId: accessor_id, token });
  console.log(JSON.stringify({ ...reference, url: storage.url(reference, accessor_id, await token()) }));
} catch (error) {
  // The library's errors say what to do; others are the agent's, about the network.
  console.error(`\n${isOpenStorageError(error) ? error.code : values.host}: ${error.message}`);
  process.exitCode = 1;
}
