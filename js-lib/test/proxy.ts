/** A TCP proxy that drops, delays and throttles: a bad network between a client and the gateway. */

import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export interface Faults {
  /** The chance that a connection is cut after some of its bytes. */
  dropRate?: number;
  /** Bytes a second of all connections together, upwards. */
  bytesPerSecond?: number;
  /** How long every byte is on its way, each way: a call takes at least twice as long. */
  delayMs?: number;
  /** Of {@link Proxy.bytesUp}: what comes after it waits, however slow the machine is that looks on. */
  bytesUpMax?: number;
  /** Swallows everything: connections stay open, nothing arrives. */
  stalled?: boolean;
  /** Ends new connections at once. */
  refuses?: boolean;
}

export class Proxy {
  faults: Faults = {};
  /** Connections that were cut. */
  drops = 0;
  /** Connections that were refused. */
  refusals = 0;
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
    const { dropRate = 0, refuses = false } = this.faults;
    if (refuses) {
      this.refusals++;
      down.destroy();
    }
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
    // What has been read is on its way: it arrives later, in order, while more is read.
    let arriving = Promise.resolve();
    let onTheWay = 0;
    const deliver = async (piece: Buffer, atMs: number) => {
      await sleep(atMs - performance.now());
      while (this.#isHeld(isUp) && !to.destroyed) await sleep(20);
      if (isUp) this.bytesUp += piece.byteLength;
      if (isCut(piece.byteLength)) {
        this.drops++;
        throw new Error("cut");
      }
      if (!to.write(piece)) await new Promise<void>((resolve) => to.once("drain", resolve).once("close", () => resolve()));
      onTheWay -= piece.byteLength;
    };
    for await (const piece of from as AsyncIterable<Buffer>) {
      if (isUp) await this.#throttle(piece.byteLength);
      const atMs = performance.now() + (this.faults.delayMs ?? 0);
      onTheWay += piece.byteLength;
      arriving = arriving.then(() => deliver(piece, atMs));
      arriving.catch((error: Error) => from.destroy(error));
      while (onTheWay > ON_THE_WAY_MAX && !from.destroyed) await sleep(5);
    }
    await arriving;
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

/** Bytes of one direction of a connection that are on their way, at most. */
const ON_THE_WAY_MAX = 16_000_000;

function sleep(ms: number): Promise<void> {
  return ms <= 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
}
