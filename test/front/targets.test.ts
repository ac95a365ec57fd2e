import { ownFace } from "../../src/front/endpoint.ts";
import { registryTools } from "../../src/front/registry-tools.ts";
import type { Tell } from "../../src/observe/events.ts";
import { deadline } from "../../src/routing/deadline.ts";
import { listedOnly, offeredOnly } from "../../src/routing/policy.ts";
import type { Target } from "../../src/target.ts";
import { invokeCall, type OpenedProvider, testTarget } from "../target-contract.ts";

/** The registry tools over one provider, behind its interceptors as Hangar wires them. */
function registryOf({ provider, events }: OpenedProvider): { target: Target; tell: Tell } {
  const tell: Tell = (event) => void events.push(event);
  const behind = deadline(listedOnly(provider, provider, tell), 30_000);
  const target = offeredOnly(behind, provider.config.tools, tell);
  return {
    target: registryTools(new Map([["p", { provider, target, relay: target }]]), tell),
    tell,
  };
}

const asRegistry = { call: invokeCall, showsAvailable: false };

testTarget("the registry tools", { ...asRegistry, target: (made) => registryOf(made).target });

testTarget("Hangar's own face", {
  ...asRegistry,
  target: (made) => {
    const { target, tell } = registryOf(made);
    return ownFace(target, tell);
  },
});
