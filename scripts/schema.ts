import { configJsonSchema } from "../src/config/schema.ts";

const LINE_WIDTH = 100;

/** The text of schema/config.schema.json, laid out as `biome format` leaves it. */
export function schemaText(): string {
  return `${print(configJsonSchema(), "", 0)}\n`;
}

/** `value` as JSON; `used` is how much of the first line stands before and after it. */
function print(value: unknown, indent: string, used: number): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    const flat = `[${value.map((item) => JSON.stringify(item)).join(", ")}]`;
    const plain = value.every((item) => typeof item !== "object");
    if (plain && used + flat.length <= LINE_WIDTH) return flat;
    return `[\n${value.map((item) => inner + print(item, inner, inner.length + 1)).join(",\n")}\n${indent}]`;
  }
  const lines = Object.entries(value).map(([key, item]) => {
    const start = `${inner}${JSON.stringify(key)}: `;
    return start + print(item, inner, start.length + 1);
  });
  return lines.length === 0 ? "{}" : `{\n${lines.join(",\n")}\n${indent}}`;
}
