/** Waiting for what another canister has to do first. */

import { Refused } from "./explain.js";

const WAIT_MS = 500;
const TRIES = 60;

/**
 * Asks twice a second, for half a minute, until there is an answer.
 *
 * @throws what `ask` throws; a {@link Refused} that says to try again when no answer came
 */
export async function patiently<T>(ask: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < TRIES; tries++) {
    if (tries > 0) await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    const answer = await ask();
    if (answer !== undefined) return answer;
  }
  throw new Refused({ Retry: { ms: BigInt(WAIT_MS) } });
}
