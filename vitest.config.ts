import { defineConfig } from "vitest/config";

/** Two projects: `vitest run --project unit` is the quick one, `--project e2e` starts the real CLI. */
export default defineConfig({
  test: {
    // Two processes are what the smallest machine has cores for; more only makes timings worse.
    maxWorkers: 2,
    setupFiles: ["test/leaks.ts"],
    projects: [
      {
        extends: true,
        test: { name: "unit", include: ["test/**/*.test.ts"], exclude: ["test/e2e/**"] },
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          globalSetup: ["test/global-setup.ts"],
          testTimeout: 20_000,
          hookTimeout: 20_000,
        },
      },
    ],
  },
});
