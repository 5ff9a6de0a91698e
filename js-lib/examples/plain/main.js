import { Actor, HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { OpenStorage, referenceToCandid } from "@openstorage/client";
import { idlFactory } from "@openstorage/client/candid/chat";
import { setStorage } from "@openstorage/client/elements";

const element = (id) => document.getElementById(id);
const status = (text) => {
  element("status").textContent = text;
};

// An identity for development; on mainnet use Internet Identity.
function developmentIdentity() {
  const kept = localStorage.getItem("identity");
  if (kept) return Ed25519KeyIdentity.fromJSON(kept);
  const identity = Ed25519KeyIdentity.generate();
  localStorage.setItem("identity", JSON.stringify(identity.toJSON()));
  return identity;
}

function ok(answer) {
  if ("Ok" in answer) return answer.Ok;
  throw new Error(`the chat answers ${Object.keys(answer.Err)[0]}`);
}

for (const id of ["index", "chat"]) {
  element(id).value = new URLSearchParams(location.search).get(id) ?? localStorage.getItem(id) ?? "";
  element(id).addEventListener("change", () => localStorage.setItem(id, element(id).value));
}

element("file").addEventListener("change", async () => {
  const [file] = element("file").files;
  if (!file) return;
  try {
    await show(file);
  } catch (error) {
    status(error.message);
  }
});

async function show(file) {
  const identity = developmentIdentity();
  const agent = await HttpAgent.create({ host: location.origin, identity, shouldFetchRootKey: true });
  const chat = Actor.createActor(idlFactory, { agent, canisterId: element("chat").value });
  const storage = new OpenStorage({ agent, indexCanisterId: element("index").value });

  status("registering …");
  ok(await chat.register());
  while (!ok(await chat.me()).confirmed) await new Promise((resolve) => setTimeout(resolve, 200));
  const [room] = await chat.chats();
  const { chat_id, accessor_id } = room ?? ok(await chat.create_chat({ name: "example" }));

  const upload = storage.upload(file, { accessorIds: [accessor_id] });
  for await (const { phase, bytesDone, bytesTotal } of upload) {
    element("progress").value = bytesTotal === 0 ? 1 : bytesDone / bytesTotal;
    status(phase);
  }
  const reference = await upload.done;
  const { message_id } = ok(await chat.send_message({ chat_id, text: "", blob: [referenceToCandid(reference)], name: [], preview: [] }));

  setStorage(storage, async () => {
    for (;;) {
      const [message] = ok(await chat.messages({ chat_id, after: [message_id - 1n], before: [], limit: 1 }));
      const token = message?.blob[0]?.token[0];
      if (token) return token;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  });
  element("picture").shown = { reference, accessorId: accessor_id.toText() };
  status(`stored as ${reference.blobId}`);
}
