/** Stands before the gateway and writes down what is asked and answered. */

import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export interface Exchange {
  readonly method: string;
  /** `/m/…`, `/…`: what is before the accessor. */
  readonly route: "/m" | "";
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  /** 0 while there is no answer. */
  status: number;
  contentRange: string | undefined;
  contentLength: string | undefined;
  verified: string | undefined;
  /** Bytes of the body that went on to the client. */
  bytes: number;
}

export class Tap {
  readonly log: Exchange[] = [];

  private constructor(private readonly server: Server) {}

  static async before(gateway: string): Promise<Tap> {
    const { hostname, port } = new URL(gateway);
    const server = createServer();
    const tap = new Tap(server);
    server.on("request", (asked, answer) => {
      const { range, "if-range": ifRange } = asked.headers;
      const exchange: Exchange = {
        method: asked.method ?? "",
        route: asked.url?.startsWith("/m/") ? "/m" : "",
        range,
        ifRange: ifRange as string | undefined,
        status: 0,
        contentRange: undefined,
        contentLength: undefined,
        verified: undefined,
        bytes: 0,
      };
      tap.log.push(exchange);
      const onward = request({ hostname, port, method: asked.method, path: asked.url, headers: asked.headers, agent: false }, (given) => {
        exchange.status = given.statusCode ?? 0;
        exchange.contentRange = given.headers["content-range"];
        exchange.contentLength = given.headers["content-length"];
        exchange.verified = given.headers["x-ic-verified"] as string | undefined;
        // As they are: a length that is not there must not be made here.
        answer.writeHead(exchange.status, given.rawHeaders);
        given.on("data", (piece: Buffer) => (exchange.bytes += piece.byteLength));
        given.on("error", () => answer.destroy());
        given.on("aborted", () => answer.destroy());
        given.pipe(answer);
      });
      onward.on("error", () => answer.destroy());
      answer.on("close", () => onward.destroy());
      asked.pipe(onward);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return tap;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** What was asked since the last time, a line each. */
  lines(): string[] {
    return this.log.splice(0).map((exchange) => {
      const { method, route, range = "whole", ifRange, status, contentRange = "", contentLength = "no length", verified, bytes } = exchange;
      return `${method} ${route || "certified"} ${range}${ifRange ? " If-Range" : ""}: ${status} ${contentRange} (${contentLength}), verified ${verified}, ${bytes} bytes`;
    });
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
