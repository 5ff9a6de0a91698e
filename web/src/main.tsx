/** The page's beginning: who the user is, then the rooms. */

import { signal } from "@preact/signals";
import { render } from "preact";
import { useStorage } from "@openstorage/client/elements";

import { App } from "./app.js";
import { explain } from "./explain.js";
import { keepName, keptIdentity, keptName, newIdentity } from "./identity.js";
import { isLocal } from "./place.js";
import { freshToken } from "./posts.js";
import { follow, keepAsking, loadAllowance, loadRooms, session } from "./rooms.js";
import { open } from "./session.js";
import { loadUnfinished } from "./uploads.js";
import { words } from "./words.js";

type Identity = Awaited<ReturnType<typeof newIdentity>>;
type Step = { at: "loading" } | { at: "welcome" } | { at: "inside" } | { at: "failed"; why: string };

const step = signal<Step>({ at: "loading" });

async function enter(identity: Identity): Promise<void> {
  step.value = { at: "loading" };
  try {
    const current = await open(identity, keptName());
    useStorage(current.storage, freshToken);
    await loadRooms(current);
    session.value = current;
    await follow();
    step.value = { at: "inside" };
    await Promise.all([loadAllowance(current), loadUnfinished(current)]);
  } catch (error) {
    step.value = { at: "failed", why: explain(error) };
  }
}

async function begin(): Promise<void> {
  const kept = await keptIdentity().catch(() => undefined);
  if (kept) await enter(kept);
  else step.value = { at: "welcome" };
}

function Welcome() {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    keepName(String(new FormData(event.currentTarget as HTMLFormElement).get("name")).trim());
    newIdentity().then(enter, (error) => (step.value = { at: "failed", why: explain(error) }));
  };
  return (
    <main class="welcome">
      <img src="/favicon.svg" alt="" width="56" height="56" />
      <h1>{words.welcome}</h1>
      <p>{words.welcomeText}</p>
      <form onSubmit={submit}>
        <label>
          {words.yourName}
          <input name="name" required maxLength={30} autocomplete="nickname" defaultValue={keptName()} />
        </label>
        <button class="main">{isLocal ? words.enter : words.signIn}</button>
      </form>
      {isLocal && <p class="quiet">{words.localNote}</p>}
    </main>
  );
}

function Page() {
  const now = step.value;
  if (now.at === "inside") return <App />;
  if (now.at === "welcome") return <Welcome />;
  if (now.at === "loading") return <main class="welcome"><h1>{words.title}</h1><p role="status">{words.loading}</p></main>;
  return (
    <main class="welcome">
      <h1>{words.cannotOpen}</h1>
      <p role="alert">{now.why}</p>
      <button class="main" onClick={() => location.reload()}>{words.tryAgain}</button>
    </main>
  );
}

addEventListener("hashchange", () => void follow());
render(<Page />, document.getElementById("app") as HTMLElement);
keepAsking();
void begin();
