/** A program on the command line. */

import { spawn } from "node:child_process";

/** Of a tool; five times what the slowest takes. */
const TOOL_MS = 60_000;

export interface Ran {
  readonly code: number;
  readonly out: Buffer;
  readonly err: string;
}

/** @param cwd where it runs */
export function run(cwd: string, program: string, args: readonly string[], timeout = TOOL_MS): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, timeout, stdio: ["ignore", "pipe", "pipe"] });
    const out: Buffer[] = [];
    let err = "";
    child.stdout.on("data", (piece: Buffer) => out.push(piece));
    child.stderr.on("data", (piece) => (err += piece));
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? -1, out: Buffer.concat(out), err }));
  });
}
