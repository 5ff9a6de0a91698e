/** The cases that every client passes, here the library in Node. */

import { after, before, test } from "node:test";

import { perform } from "./conformance/perform.js";
import { Story, table } from "./conformance/story.js";
import { Network } from "./network.js";

let network: Network;
let story: Story;
before(async () => {
  network = await Network.start();
  story = new Story(network, (user, step, given) => perform(user.agent, network.index, step, given));
});
after(() => network.stop());

for (const { name, steps } of table.cases) {
  test(name, { timeout: 240_000 }, () => story.tell(steps));
}
