// Serves this folder, and hands what begins with /api to the local network, so that the page needs no CORS:
//
//   node serve.mjs [--port 5174] [--network http://localhost:4943]

import { createReadStream } from "node:fs";
import { createServer, request } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "5174" },
    network: { type: "string", default: "http://localhost:4943" },
  },
});
const root = fileURLToPath(new URL(".", import.meta.url));
const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript" };

const server = createServer((from, to) => {
  const url = new URL(from.url, "http://localhost");
  if (url.pathname.startsWith("/api/")) {
    const up = request(new URL(from.url, values.network), { method: from.method, headers: from.headers }, (answer) => {
      to.writeHead(answer.statusCode, answer.headers);
      answer.pipe(to);
    });
    up.on("error", () => to.writeHead(502).end("the local network does not answer: cargo xtask demo --port 4943"));
    from.pipe(up);
    return;
  }
  const path = normalize(url.pathname === "/" ? "/index.html" : url.pathname);
  createReadStream(join(root, path))
    .on("error", () => to.writeHead(404).end())
    .once("open", () => to.writeHead(200, { "content-type": types[extname(path)] ?? "application/octet-stream" }))
    .pipe(to);
});
// Port 0 is any that is free.
server.listen(Number(values.port), () => console.log(`http://localhost:${server.address().port}`));
