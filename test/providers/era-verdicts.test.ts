import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { EraVerdicts } from "../../src/providers/era-verdicts.ts";
import { tempDir } from "../harness.ts";

const DAY_MS = 24 * 3600 * 1000;

afterEach(() => {
  vi.useRealTimers();
});

/** Sets the clock only; timers and files stay real. */
function setClock(now: number): void {
  vi.useFakeTimers({ toFake: ["Date"], now });
}

describe("the verdicts about eras", () => {
  it("are known to the next start of Hangar", async () => {
    const file = join(tempDir(), "eras.json");
    const first = new EraVerdicts(file);
    expect(await first.get("a")).toBeUndefined();
    await first.set("a", "legacy");
    await first.set("b", "modern");
    const next = new EraVerdicts(file);
    expect(await next.get("a")).toBe("legacy");
    expect(await next.get("b")).toBe("modern");
    expect(await next.get("c")).toBeUndefined();
  });

  it("can be revised and forgotten", async () => {
    const file = join(tempDir(), "eras.json");
    const verdicts = new EraVerdicts(file);
    await verdicts.set("a", "legacy");
    await verdicts.set("a", "modern");
    await verdicts.set("b", "legacy");
    expect(await new EraVerdicts(file).get("a")).toBe("modern");
    await verdicts.forget("a");
    await verdicts.forget("never known");
    expect(await verdicts.get("a")).toBeUndefined();
    expect(await new EraVerdicts(file).get("a")).toBeUndefined();
    expect(await new EraVerdicts(file).get("b")).toBe("legacy");
  });

  it("hold for a day, in memory and on disk, and use in between does not prolong them", async () => {
    const file = join(tempDir(), "eras.json");
    setClock(1_000_000);
    const verdicts = new EraVerdicts(file);
    await verdicts.set("a", "legacy");
    setClock(1_000_000 + DAY_MS);
    await verdicts.set("a", "legacy");
    expect(await verdicts.get("a")).toBe("legacy");
    setClock(1_000_000 + DAY_MS + 1);
    expect(await verdicts.get("a")).toBeUndefined();
    expect(await new EraVerdicts(file).get("a")).toBeUndefined();
    await verdicts.set("a", "modern");
    expect(await new EraVerdicts(file).get("a")).toBe("modern");
  });

  it.each([
    ["no JSON", "{ not json"],
    ["empty", ""],
    ["null", "null"],
    ["an array", "[1,2]"],
    ["a string", '"legacy"'],
    ["of another make", '{"a":{"era":"ancient","at":1},"b":null,"c":3}'],
    ["without times", '{"a":{"era":"legacy"},"b":{"era":"modern","at":"yesterday"}}'],
  ])("start anew when the file is %s", async (_, content) => {
    const file = join(tempDir(), "eras.json");
    writeFileSync(file, content);
    const verdicts = new EraVerdicts(file);
    for (const key of ["a", "b", "c", "0"]) expect(await verdicts.get(key), key).toBeUndefined();
    await verdicts.set("d", "legacy");
    expect(await new EraVerdicts(file).get("d")).toBe("legacy");
  });

  it("keep the good entries of a file that also has bad ones", async () => {
    const file = join(tempDir(), "eras.json");
    writeFileSync(
      file,
      JSON.stringify({ good: { era: "modern", at: Date.now() }, bad: { era: 1 } }),
    );
    const verdicts = new EraVerdicts(file);
    expect(await verdicts.get("good")).toBe("modern");
    expect(await verdicts.get("bad")).toBeUndefined();
  });

  it("of two Hangars on one file do not wipe out each other", async () => {
    const file = join(tempDir(), "eras.json");
    const one = new EraVerdicts(file);
    const other = new EraVerdicts(file);
    await Promise.all([one.get("x"), other.get("x")]);
    await one.set("a", "legacy");
    await other.set("b", "modern");
    const third = new EraVerdicts(file);
    expect(await third.get("a")).toBe("legacy");
    expect(await third.get("b")).toBe("modern");
  });

  it("of two Hangars that write at once leave a file that can be read", async () => {
    const file = join(tempDir(), "eras.json");
    const both = [new EraVerdicts(file), new EraVerdicts(file)];
    const keys = Array.from({ length: 20 }, (_, n) => `key ${n}`);
    await Promise.all(keys.map(async (key, n) => both[n % 2]?.set(key, "legacy")));
    expect(Object.keys(JSON.parse(readFileSync(file, "utf8"))).length).toBeGreaterThan(0);
  });

  it("of one Hangar that are set at once are all kept", async () => {
    const file = join(tempDir(), "eras.json");
    const verdicts = new EraVerdicts(file);
    const keys = Array.from({ length: 20 }, (_, n) => `key ${n}`);
    await Promise.all(keys.map((key) => verdicts.set(key, "legacy")));
    const next = new EraVerdicts(file);
    for (const key of keys) expect(await next.get(key)).toBe("legacy");
  });

  it("are in a file that only its owner can read, with nothing beside it", async () => {
    const dir = tempDir();
    await new EraVerdicts(join(dir, "eras.json")).set("a", "legacy");
    expect(statSync(join(dir, "eras.json")).mode & 0o777).toBe(0o600);
    expect(readdirSync(dir)).toEqual(["eras.json"]);
  });

  it("are kept in memory without a file", async () => {
    const verdicts = new EraVerdicts(undefined);
    await verdicts.set("a", "modern");
    await verdicts.set("b", "legacy");
    await verdicts.forget("b");
    expect(await verdicts.get("a")).toBe("modern");
    expect(await verdicts.get("b")).toBeUndefined();
  });

  it.each([
    ["the folder does not exist", (dir: string) => join(dir, "gone", "eras.json")],
    [
      "a folder stands in the file's place",
      (dir: string) => {
        mkdirSync(join(dir, "eras.json"));
        return join(dir, "eras.json");
      },
    ],
  ])("are kept in memory when %s", async (_, place) => {
    const verdicts = new EraVerdicts(place(tempDir()));
    await verdicts.set("a", "modern");
    await verdicts.set("b", "legacy");
    expect(await verdicts.get("b")).toBe("legacy");
    expect(await verdicts.get("a")).toBe("modern");
    await verdicts.forget("b");
    expect(await verdicts.get("b")).toBeUndefined();
  });
});
