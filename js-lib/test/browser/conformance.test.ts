/** The cases that every client passes, here the library in a real browser. */

import { after, test } from "node:test";

import type { Page } from "playwright-core";

import { Story, table } from "../conformance/story.js";
import { Network, type User } from "../network.js";
import { kitPage } from "./kit-page.js";
import { launch } from "./page.js";

const STEP_MS = 60_000;

const network = await Network.start();
const browser = await launch();
after(async () => {
  await browser.close();
  await network.stop();
});

/** Each user has a browser of its own. */
const pages = new Map<User, Promise<Page>>();

async function open(user: User): Promise<Page> {
  const page = await kitPage(await browser.newContext(), network.url, STEP_MS);
  const who = [network.index, JSON.stringify(user.identity.toJSON())] as const;
  await page.evaluate(([index, identity]) => window.kit.open(index, identity), who);
  return page;
}

const story = new Story(network, async (user, step, given) => {
  const opening = pages.get(user) ?? open(user);
  pages.set(user, opening);
  return (await opening).evaluate(([step, given]) => window.kit.perform(step, given), [step, given] as const);
});

for (const { name, steps } of table.cases) {
  test(name, { timeout: 240_000 }, () => story.tell(steps));
}
