import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/**
 * Which process listens on a TCP port of this machine, as `pid 4711 (node server.js)`; undefined
 * where the system does not tell: other than Linux, or another user's process.
 */
export function portHolder(port: number): string | undefined {
  try {
    const inodes = listeningSockets(port);
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      if (holdsSocket(pid, inodes)) {
        const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        return `pid ${pid} (${command.slice(0, 200)})`;
      }
    }
  } catch {
    // Not Linux.
  }
  return undefined;
}

function listeningSockets(port: number): Set<string> {
  const LISTEN = "0A";
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const inodes = new Set<string>();
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    for (const line of readFileSync(table, "utf8").split("\n")) {
      const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
      if (state === LISTEN && local.endsWith(suffix)) inodes.add(`socket:[${inode}]`);
    }
  }
  return inodes;
}

function holdsSocket(pid: string, sockets: ReadonlySet<string>): boolean {
  try {
    const folder = `/proc/${pid}/fd`;
    return readdirSync(folder).some((fd) => sockets.has(readlinkSync(`${folder}/${fd}`)));
  } catch {
    return false; // gone meanwhile, or another user's
  }
}
