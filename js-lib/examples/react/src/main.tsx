import "@openstorage/client/elements";

import { referenceToCandid } from "@openstorage/client";
import { type Shown, type StoredImage, setStorage } from "@openstorage/client/elements";
import { useEffect, useMemo, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

import { type Connection, connect, ok } from "./connect";
import { useUpload } from "./use-upload";

declare module "react" {
  namespace JSX {
    interface IntrinsicElements {
      "stored-image": DetailedHTMLProps<HTMLAttributes<StoredImage> & { alt?: string; shown?: Shown }, StoredImage>;
    }
  }
}

function App() {
  const [connection, setConnection] = useState<Connection>();
  const [error, setError] = useState<Error>();
  useEffect(() => {
    connect().then(setConnection, setError);
  }, []);
  if (error) return <p role="alert">{error.message}</p>;
  return connection ? <Uploader {...connection} /> : <p role="status">Connecting …</p>;
}

function Uploader({ chat, storage, room }: Connection) {
  const options = useMemo(() => ({ accessorIds: [room.accessor_id] }), [room]);
  const { upload, progress, error, start } = useUpload(storage, options);
  const [shown, setShown] = useState<Shown>();
  const message = useRef(0n);

  useEffect(() => {
    setStorage(storage, async () => {
      for (;;) {
        const page = await chat.messages({ chat_id: room.chat_id, after: [message.current - 1n], before: [], limit: 1 });
        const token = ok(page)[0]?.blob[0]?.token[0];
        if (token) return token;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    });
  }, [chat, storage, room]);

  async function send(file: File) {
    const reference = await start(file);
    if (!reference) return;
    const blob: [ReturnType<typeof referenceToCandid>] = [referenceToCandid(reference)];
    const sent = ok(await chat.send_message({ chat_id: room.chat_id, text: "", blob, name: [], preview: [] }));
    message.current = sent.message_id;
    setShown({ reference, accessorId: room.accessor_id.toText() });
  }

  return (
    <main>
      <h1>Upload a picture</h1>
      <input
        type="file"
        aria-label="Picture"
        accept="image/*"
        onChange={({ target }) => target.files?.[0] && void send(target.files[0])}
      />
      {progress && <progress max={progress.bytesTotal || 1} value={progress.bytesDone} aria-label={progress.phase} />}
      {upload?.state === "running" && <button onClick={() => upload.pause()}>Pause</button>}
      {upload?.state === "paused" && <button onClick={() => upload.resume()}>Go on</button>}
      {error && <p role="alert">{error.message}</p>}
      {shown && (
        <stored-image alt="What you uploaded" shown={shown}>
          <span slot="placeholder">Loading …</span>
        </stored-image>
      )}
    </main>
  );
}

createRoot(document.getElementById("root")!).render(<App />);
