/** The page's beginning: who the user is, then the rooms. */

import { signal, useSignal } from "@preact/signals";
import { render } from "preact";
import { setStorage } from "@openstorage/client/elements";

import { App } from "./app.js";
import { explain } from "./explain.js";
import { keepName, keptIdentity, keptName, signInReady } from "./identity.js";
import { isLocal, placeIn } from "./place.js";
import { freshToken } from "./posts.js";
import { follow, joinRoom, keepAsking, loadAllowance, loadRooms, session } from "./rooms.js";
import { open } from "./session.js";
import { loadUnfinished } from "./uploads.js";
import { words } from "./words.js";

type SignIn = Awaited<ReturnType<typeof signInReady>>;
type Identity = Awaited<ReturnType<SignIn>>;
type Step = { at: "loading" } | { at: "welcome"; signIn: SignIn } | { at: "inside" } | { at: "failed"; why: string };

const step = signal<Step>({ at: "loading" });

/** @param isNew the user has said a name on this page, and seen that an invitation is taken up with it */
async function enter(identity: Identity, isNew = false): Promise<void> {
  step.value = { at: "loading" };
  try {
    const current = await open(identity, keptName());
    setStorage(current.storage, freshToken);
    await loadRooms(current);
    session.value = current;
    const place = placeIn(location.hash);
    if (isNew && place?.invite) await joinRoom(place);
    await follow();
    step.value = { at: "inside" };
    await Promise.all([loadAllowance(current), loadUnfinished(current)]);
  } catch (error) {
    step.value = { at: "failed", why: explain(error) };
  }
}

async function begin(): Promise<void> {
  try {
    const kept = await keptIdentity().catch(() => undefined);
    if (kept) await enter(kept);
    else step.value = { at: "welcome", signIn: await signInReady() };
  } catch (error) {
    step.value = { at: "failed", why: explain(error) };
  }
}

function Welcome({ signIn }: { signIn: SignIn }) {
  const isRefused = useSignal(false);
  // In the click itself, which Enter makes too: a form's submission would come too late for a window.
  const click = (event: MouseEvent) => {
    const { form } = event.currentTarget as HTMLButtonElement;
    if (!form?.reportValidity()) return;
    keepName(String(new FormData(form).get("name")).trim());
    isRefused.value = false;
    signIn().then((identity) => enter(identity, true), () => (isRefused.value = true));
  };
  return (
    <main class="welcome">
      <div>
        <img src="/favicon.svg" alt="" width="56" height="56" />
        <h1>{words.welcome}</h1>
        <p>{words.welcomeText}</p>
        {placeIn(location.hash)?.invite && <p><b>{words.invited}</b></p>}
        <form onSubmit={(event) => event.preventDefault()}>
          <label>
            {words.yourName}
            <input name="name" required maxLength={30} dir="auto" autocomplete="nickname" defaultValue={keptName()} />
          </label>
          <button class="main" onClick={click}>{isLocal ? words.enter : words.signIn}</button>
        </form>
        {isRefused.value && <p class="bad" role="alert">{words.notSignedIn}</p>}
        {isLocal && <p class="quiet">{words.localNote}</p>}
      </div>
    </main>
  );
}

function Page() {
  const now = step.value;
  if (now.at === "inside") return <App />;
  if (now.at === "welcome") return <Welcome signIn={now.signIn} />;
  return (
    <main class="welcome">
      {now.at === "loading" ? (
        <div>
          <h1>{words.title}</h1>
          <p role="status">{words.loading}</p>
        </div>
      ) : (
        <div>
          <h1>{words.cannotOpen}</h1>
          <p role="alert">{now.why}</p>
          <button class="main" onClick={() => location.reload()}>{words.tryAgain}</button>
        </div>
      )}
    </main>
  );
}

addEventListener("hashchange", () => void follow());
render(<Page />, document.getElementById("app") as HTMLElement);
keepAsking();
void begin();
