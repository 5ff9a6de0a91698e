import { blobUrl, startRangeWorker } from "@openstorage/client";

// What an app has from its canister: the reference, the accessor and the token. Here the address says it.
//   ?gateway=http://localhost:4943&bucket=…&accessorId=…&blobId=…&token=…&size=…&mimeType=video/mp4
const { gateway, size, ...blob } = Object.fromEntries(new URLSearchParams(location.search));
const film = { ...blob, size: Number(size) };

async function show() {
  const worker = await startRangeWorker(`worker.js?gateway=${encodeURIComponent(gateway)}`);
  // With an OpenStorage, `storage.url()` chooses: give it the worker as its option `ranges`.
  const verified = worker.url(film);
  document.getElementById("film").src = verified ?? blobUrl(film, { gateway, seekable: true });
  // Without the attribute `download`: by that Chromium goes past the worker.
  document.getElementById("save").href = worker.url({ ...film, saveAs: "film" }) ?? blobUrl(film, { gateway });
  document.getElementById("status").textContent = verified ? "verified" : "not verified: no service worker";
}

show();
