/** Files in a chat, stored by the library, and the URLs under which they are there for browsers and tools. */

import { type BlobReference, type OpenStorage, referenceToCandid, type UploadData, type UrlOptions } from "@openstorage/client";

import { Network, tokenFor, type User } from "../network.js";
import { Tap } from "./tap.js";

export interface Stored {
  readonly reference: BlobReference;
  /** The URL that the library gives, or, with options, another one; by name for browsers. */
  url(options?: UrlOptions): string;
  /** The same for tools, some of which know no names below `localhost`. */
  plain(options?: UrlOptions): string;
}

export class Shelf {
  private constructor(
    readonly network: Network,
    readonly tap: Tap,
    readonly user: User,
    readonly storage: OpenStorage,
    private readonly chatId: bigint,
    readonly accessorId: string,
  ) {}

  static async start(): Promise<Shelf> {
    const network = await Network.start();
    const tap = await Tap.before(network.url);
    const { user, chat, accessorId } = await network.userWithChat();
    const storage = await user.storage({ gateway: `http://localhost:${tap.port}`, cache: false });
    return new Shelf(network, tap, user, storage, chat.chat_id, accessorId);
  }

  async stop(): Promise<void> {
    await this.tap.stop();
    await this.network.stop();
  }

  async store(data: UploadData, mimeType: string, name = "file"): Promise<Stored> {
    const { storage, accessorId } = this;
    const reference = await storage.upload(data, { accessorIds: [accessorId], mimeType, name }).done;
    const message = { chat_id: this.chatId, text: "", blob: [referenceToCandid(reference)] as [ReturnType<typeof referenceToCandid>] };
    const sent = await this.user.chat.send_message({ ...message, name: [], preview: [] });
    if ("Err" in sent) throw new Error(JSON.stringify(sent.Err));
    const { token } = await tokenFor(this.user, this.chatId);
    const url = (options: UrlOptions = {}) => storage.url(reference, accessorId, token, options);
    const byAddress = { gateway: `http://127.0.0.1:${this.tap.port}`, form: "query" } as const;
    return { reference, url, plain: (options = {}) => url({ ...byAddress, ...options }) };
  }
}
