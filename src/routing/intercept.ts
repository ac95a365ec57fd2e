import type { Target } from "../target.ts";

/** `target` with another way to take calls; everything else of it stays. */
export function intercept(target: Target, dispatch: Target["dispatch"]): Target {
  return {
    name: target.name,
    get available() {
      return target.available;
    },
    dispatch,
    watch: (watcher) => target.watch(watcher),
  };
}
