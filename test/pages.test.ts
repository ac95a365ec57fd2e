import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "..");

function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

const pages = globSync(["*.md", "docs/**/*.md", "examples/**/*.md"], { cwd: root });

/** The pages and files that `page` links to, outside the web, as `path#anchor`. */
function linksOf(page: string): { path: string; anchor: string }[] {
  const links = read(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)/g);
  return [...links].map(([, target = "", anchor = ""]) => ({
    path: target === "" ? page : normalize(join(dirname(page), target)),
    anchor,
  }));
}

/** The anchors of a page's headings, as code hosts make them. */
function anchorsOf(page: string): string[] {
  return [...read(page).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w\s-]/g, "")
      .replaceAll(" ", "-"),
  );
}

describe("the pages", () => {
  test("every link leads somewhere", () => {
    const links = pages.flatMap((page) => linksOf(page).map((link) => ({ page, ...link })));
    const broken = links.filter(
      ({ path, anchor }) =>
        !existsSync(join(root, path)) || (anchor !== "" && !anchorsOf(path).includes(anchor)),
    );
    expect(links.length).toBeGreaterThan(0);
    expect(broken).toEqual([]);
  });

  test("the index leads to every page of docs", () => {
    const linked = linksOf("docs/INDEX.md").map(({ path }) => path);
    const others = pages.filter((page) => page.startsWith("docs/") && page !== "docs/INDEX.md");
    expect(linked).toEqual(expect.arrayContaining(others));
  });

  test("every piece of YAML or JSON is part of a file in examples", () => {
    const examples = globSync("examples/**/*.{yaml,json}", { cwd: root }).map(read);
    const snippets = pages.flatMap((page) =>
      [...read(page).matchAll(/^```(?:yaml|json)\n([^]*?)^```$/gm)].map(([, text = ""]) => ({
        page,
        text,
      })),
    );
    const generated = ({ text }: { text: string }) => text.startsWith("# yaml-language-server");
    const strays = snippets
      .filter((snippet) => !generated(snippet))
      .filter(({ text }) => !examples.some((example) => example.includes(text)));
    expect(snippets.length).toBeGreaterThan(0);
    expect(strays).toEqual([]);
  });

  test("the README is short enough to be read", () => {
    expect(read("README.md").split("\n").length).toBeLessThanOrEqual(150);
  });

  test("CONTRIBUTING says of every dependency what it is for, and of no other", () => {
    const { dependencies, devDependencies } = JSON.parse(read("package.json")) as {
      dependencies: object;
      devDependencies: object;
    };
    const [, table = ""] = read("CONTRIBUTING.md").split("## Dependencies");
    const rows = [...table.matchAll(/^\| (`.+?) \|/gm)].map(([, cell = ""]) => cell);
    const named = rows.flatMap((cell) =>
      [...cell.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name),
    );
    const wanted = Object.keys({ ...dependencies, ...devDependencies });
    expect(named.toSorted()).toEqual(wanted.toSorted());
  });
});
