const MAX_PORT = 65_535;

/** `text` as a TCP port, 0 (any free one) included; undefined when it is none. */
export function parsePort(text: string): number | undefined {
  const port = Number(text);
  return /^\d+$/.test(text) && port <= MAX_PORT ? port : undefined;
}
