import { spawn, type SpawnOptions } from "node:child_process";
import type { Faults } from "./flags.ts";

/** So that a gateway that leaves them behind does so for a while only. */
const LIFE_S = 600;
/** What a shell ignores, the program that takes its place ignores too. */
const STUBBORN = `trap '' TERM; exec sleep ${LIFE_S}`;

/** Starts the children that `faults` ask for, who outlive this process unless somebody ends them; gives their process ids. */
export function startChildren({ grandchild, setsidGrandchild }: Faults): number[] {
  const wanted: SpawnOptions[] = [];
  if (grandchild === true) wanted.push({ stdio: ["ignore", "inherit", "inherit"] });
  if (setsidGrandchild === true) wanted.push({ stdio: "ignore", detached: true });
  return wanted.map((options) => {
    const child = spawn("/bin/sh", ["-c", STUBBORN], options);
    child.unref();
    return child.pid as number;
  });
}
