/** A TCP proxy that drops, delays and throttles: a bad network between a client and the gateway. */

import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export interface Faults {
  /** The chance that a connection is cut after some of its bytes. */
  dropRate?: number;
  /** Bytes a second of all connections together, upwards. */
  bytesPerSecond?: number;
  /** Added to every piece, each way. */
  delayMs?: number;
  /** Of {@link Proxy.bytesUp}: what comes after it waits, however slow the machine is that looks on. */
  bytesUpMax?: number;
  /** Swallows everything: connections stay open, nothing arrives. */
  stalled?: boolean;
}

export class Proxy {
  faults: Faults = {};
  /** Connections that were cut. */
  drops = 0;
  /** Bytes that went up. */
  bytesUp = 0;
  readonly #sockets = new Set<Socket>();
  #freeAtMs = 0;

  private constructor(
    private readonly server: Server,
    private readonly random: () => number,
  ) {}

  /** @param seed of what is dropped */
  static async to(url: string, seed = 1): Promise<Proxy> {
    const { hostname, port } = new URL(url);
    let state = seed;
    const random = () => (state = (state * 16_807) % 2_147_483_647) / 2_147_483_647;
    const server = createServer({ allowHalfOpen: true });
    const proxy = new Proxy(server, random);
    server.on("connection", (down) => proxy.#join(down, connect({ host: hostname, port: Number(port), allowHalfOpen: true })));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Cuts every connection that is open. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #join(down: Socket, up: Socket): void {
    const { dropRate = 0 } = this.faults;
    let left = this.random() < dropRate ? Math.floor(this.random() * 1_500_000) : Number.POSITIVE_INFINITY;
    const end = () => {
      down.destroy();
      up.destroy();
    };
    for (const socket of [down, up]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", end);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        end();
      });
    }
    void this.#pump(down, up, true, (bytes) => (left -= bytes) <= 0).catch(end);
    void this.#pump(up, down, false, () => false).catch(end);
  }

  async #pump(from: Socket, to: Socket, isUp: boolean, isCut: (bytes: number) => boolean): Promise<void> {
    for await (const piece of from as AsyncIterable<Buffer>) {
      while (this.#isHeld(isUp) && !from.destroyed) await sleep(20);
      if (isUp) await this.#throttle(piece.byteLength);
      if (this.faults.delayMs) await sleep(this.faults.delayMs);
      if (isUp) this.bytesUp += piece.byteLength;
      if (isCut(piece.byteLength)) {
        this.drops++;
        throw new Error("cut");
      }
      if (!to.write(piece)) await new Promise((resolve) => to.once("drain", resolve));
    }
    to.end();
  }

  #isHeld(isUp: boolean): boolean {
    const { stalled = false, bytesUpMax = Number.POSITIVE_INFINITY } = this.faults;
    return stalled || (isUp && this.bytesUp >= bytesUpMax);
  }

  async #throttle(bytes: number): Promise<void> {
    const { bytesPerSecond } = this.faults;
    if (!bytesPerSecond) return;
    const now = Date.now();
    this.#freeAtMs = Math.max(now, this.#freeAtMs) + (bytes / bytesPerSecond) * 1000;
    await sleep(this.#freeAtMs - now);
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
