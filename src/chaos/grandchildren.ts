import { spawn, type SpawnOptions } from "node:child_process";
import type { Faults } from "./flags.ts";

/** So that a gateway that leaves them behind does so for a while only. */
const LIFE_MS = 600_000;
const PROGRAM = `process.on("SIGTERM", () => {}); setTimeout(() => {}, ${LIFE_MS})`;

/** Starts the children that `faults` ask for, who outlive this process unless somebody ends them; gives their process ids. */
export function startChildren({ grandchild, setsidGrandchild }: Faults): number[] {
  const wanted: SpawnOptions[] = [];
  if (grandchild === true) wanted.push({ stdio: ["ignore", "inherit", "inherit"] });
  if (setsidGrandchild === true) wanted.push({ stdio: "ignore", detached: true });
  return wanted.map((options) => {
    const child = spawn(process.execPath, ["-e", PROGRAM], options);
    child.unref();
    return child.pid as number;
  });
}
