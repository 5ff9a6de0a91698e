/**
 * Films and sounds as phones, cameras and recorders make them, by ffmpeg: a picture of noise and a tone, so that they are
 * several parts long.
 */

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

export interface Medium {
  readonly name: string;
  /** As browsers name it for a file of this ending. */
  readonly mimeType: string;
  readonly element: "video" | "audio";
  readonly bytes: Buffer;
}

const FILM_SECONDS = 40;
const SOUND_SECONDS = 90;
const RATE = ["-b:v", "1500k", "-minrate", "1500k", "-maxrate", "1500k", "-bufsize", "1500k", "-g", "12"];
const PICTURE = ["-f", "lavfi", "-i", `testsrc2=s=320x240:r=12:d=${FILM_SECONDS},noise=alls=60:allf=t`];
const TONE = ["-f", "lavfi", "-i", `sine=f=440:r=48000:d=${FILM_SECONDS}`];
const NOISE = ["-f", "lavfi", "-i", `anoisesrc=r=48000:d=${SOUND_SECONDS}:a=0.3`, "-ac", "2"];
const H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", ...RATE, "-nal-hrd", "cbr", "-c:a", "aac", "-b:a", "64k"];
const VP8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", ...RATE, "-c:a", "libopus", "-b:a", "64k"];

/** In the order in which they are made. */
const MADE: readonly (readonly [name: string, mimeType: string, args: readonly string[]])[] = [
  // The index at the end, as recorders write it: a player has to jump before it can begin.
  ["tail.mp4", "video/mp4", [...PICTURE, ...TONE, ...H264]],
  ["fast.mp4", "video/mp4", ["-i", "tail.mp4", "-c", "copy", "-movflags", "+faststart"]],
  ["film.mov", "video/quicktime", ["-i", "tail.mp4", "-c", "copy"]],
  ["film.mkv", "video/x-matroska", ["-i", "tail.mp4", "-c", "copy"]],
  ["film.webm", "video/webm", [...PICTURE, ...TONE, ...VP8]],
  ["sound.m4a", "audio/mp4", [...NOISE, "-c:a", "aac", "-b:a", "320k"]],
  ["sound.mp3", "audio/mpeg", [...NOISE, "-c:a", "libmp3lame", "-b:a", "320k"]],
  ["sound.aac", "audio/aac", [...NOISE, "-c:a", "aac", "-b:a", "320k"]],
  ["sound.flac", "audio/flac", [...NOISE, "-c:a", "flac"]],
  ["sound.ogg", "audio/ogg", [...NOISE, "-c:a", "libvorbis", "-b:a", "400k"]],
  ["sound.opus", "audio/ogg", ["-f", "lavfi", "-i", `anoisesrc=r=48000:d=${SOUND_SECONDS}:a=0.2`, "-ac", "2", "-c:a", "libopus", "-b:a", "400k"]],
  ["sound.wav", "audio/wav", [...NOISE, "-c:a", "pcm_s16le"]],
];

/**
 * Makes those of these names in `folder`, all without any; what is copied from another needs that one named too. Each is
 * longer than a part of 2,000,000 bytes.
 */
export async function media(folder: string, names?: readonly string[]): Promise<Medium[]> {
  const made: Medium[] = [];
  for (const [name, mimeType, args] of MADE.filter(([name]) => names?.includes(name) ?? true)) {
    await promisify(execFile)("ffmpeg", ["-v", "error", "-y", ...args, name], { cwd: folder });
    const bytes = await readFile(join(folder, name));
    if (bytes.byteLength <= 2_000_000) throw new Error(`${name} has ${bytes.byteLength} bytes: it fits a part`);
    made.push({ name, mimeType, element: mimeType.startsWith("video/") ? "video" : "audio", bytes });
  }
  return made;
}
