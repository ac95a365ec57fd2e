import { defineConfig } from "vitest/config";

/** What needs the machine to itself: it measures, or runs programs that give up soon. */
const ALONE = ["test/e2e/{bench,conformance}.test.ts"];

/** `vitest run --project unit` is the quick one; `e2e` starts the real CLI, `alone` does so one file after the other, afterwards. */
export default defineConfig({
  test: {
    // Two processes are what the smallest machine has cores for; more only makes timings worse.
    maxWorkers: 2,
    setupFiles: ["test/leaks.ts"],
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: ["test/e2e/**"],
          testTimeout: 20_000,
        },
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          exclude: ALONE,
          globalSetup: ["test/global-setup.ts"],
          testTimeout: 20_000,
          hookTimeout: 20_000,
        },
      },
      {
        extends: true,
        test: {
          name: "alone",
          include: ALONE,
          globalSetup: ["test/global-setup.ts"],
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
          testTimeout: 20_000,
          hookTimeout: 20_000,
        },
      },
    ],
  },
});
