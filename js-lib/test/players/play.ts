/** A page that plays, as any app's would: an element with a URL. */

import type { Engine } from "./engines.js";

/** How far a player got, in order. */
export interface Played {
  /** The last step that came to its end. */
  readonly reached: "nothing" | "metadata" | "playing" | "forward" | "back" | "end";
  readonly durationS: number;
  /** What the element says of its failure, or which event did not come. */
  readonly problem: string;
}

export interface Player {
  readonly url: string;
  readonly element: "video" | "audio";
  /** With CORS, or without. */
  readonly crossOrigin?: boolean;
  readonly stepMs?: number;
}

/**
 * Loads, plays, jumps to 80 % and back to 10 %, plays there, and plays the last second to its end. The page stays where it is.
 */
export function play(engine: Engine, { url, element, crossOrigin = false, stepMs = 15_000 }: Player): Promise<Played> {
  return engine.run(
    async ({ url, element, crossOrigin, stepMs }) => {
      document.querySelectorAll("video, audio").forEach((old) => {
        old.removeAttribute("src");
        (old as HTMLMediaElement).load();
        old.remove();
      });
      const media = document.createElement(element) as HTMLMediaElement;
      let reached: string = "nothing";
      const until = (what: string, isSo: () => boolean) =>
        new Promise<void>((resolve, reject) => {
          const looking = setInterval(() => {
            if (media.error) end(() => reject(new Error(`${what}: error ${media.error?.code} ${media.error?.message}`)));
            else if (isSo()) end(resolve);
          }, 20);
          const waiting = setTimeout(() => {
            const { readyState, networkState, currentTime, seeking, paused } = media;
            end(() => reject(new Error(`${what}: not in time ${JSON.stringify({ readyState, networkState, currentTime, seeking, paused })}`)));
          }, stepMs);
          const end = (then: () => void) => {
            clearInterval(looking);
            clearTimeout(waiting);
            then();
          };
        });
      const jump = async (what: string, to: number) => {
        media.currentTime = to;
        await until(what, () => !media.seeking && Math.abs(media.currentTime - to) < 2);
        const from = media.currentTime;
        media.play().catch(() => {});
        await until(`${what}, playing on`, () => media.currentTime > from + 0.3);
      };
      try {
        media.muted = true;
        media.preload = "metadata";
        media.controls = true;
        if (crossOrigin) media.crossOrigin = "anonymous";
        media.src = url;
        document.body.append(media);
        await until("metadata", () => media.readyState >= 1 && media.duration > 0);
        reached = "metadata";
        media.play().catch(() => {});
        await until("playing", () => media.currentTime > 0.5);
        reached = "playing";
        await jump("forward to 80 %", media.duration * 0.8);
        reached = "forward";
        await jump("back to 10 %", media.duration * 0.1);
        reached = "back";
        // Of some sounds the duration is an estimate, and its last second beyond the end.
        media.currentTime = media.duration - 1;
        await until("the end", () => media.ended);
        reached = "end";
        return { reached, durationS: media.duration, problem: "" } as Played;
      } catch (error) {
        return { reached, durationS: media.duration || 0, problem: String((error as Error).message ?? error) } as Played;
      }
    },
    { url, element, crossOrigin, stepMs },
  );
}
