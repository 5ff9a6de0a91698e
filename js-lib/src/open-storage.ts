/** The front door on the platform at hand: a browser's, or Node's. */

import { platform } from "#platform";

import { OpenStorageOn, type OpenStorageOptions } from "./storage.js";

/**
 * One user's way to an index and its buckets.
 *
 * ```ts
 * const agent = await HttpAgent.create({ host: "https://icp-api.io", identity });
 * const storage = new OpenStorage({ agent, indexCanisterId });
 * const reference = await storage.upload(file, { accessorIds: [accessorId] }).done;
 * ```
 */
export class OpenStorage extends OpenStorageOn {
  /** @throws `InvalidPrincipal`, `InvalidOption` */
  constructor(options: OpenStorageOptions) {
    super(platform, options);
  }
}
