import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";

/**
 * Makes `folder` and what is missing above it. Node's own recursive mkdir never ends below a folder that takes no
 * new ones but says that they do not exist, such as /proc.
 */
export function makeFolder(folder: string, mode: number): void {
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && statSync(folder).isDirectory()) return;
    const parent = dirname(folder);
    if (code !== "ENOENT" || parent === folder || exists(parent)) throw error;
    makeFolder(parent, mode);
    mkdirSync(folder, { mode });
  }
}

function exists(folder: string): boolean {
  return statSync(folder, { throwIfNoEntry: false }) !== undefined;
}
