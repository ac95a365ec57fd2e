import { ownFace } from "../../src/front/endpoint.ts";
import { registryTools } from "../../src/front/registry-tools.ts";
import type { Tell } from "../../src/observe/events.ts";
import { behindInterceptors } from "../../src/routing/interceptors.ts";
import { Room } from "../../src/routing/limit.ts";
import type { Target } from "../../src/target.ts";
import { invokeCall, type OpenedProvider, testTarget } from "../target-contract.ts";

/** The registry tools over one provider, behind its interceptors as Hangar wires them. */
function registryOf({ provider, events }: OpenedProvider): { target: Target; tell: Tell } {
  const tell: Tell = (event) => void events.push(event);
  const around = { room: new Room(1_000), invokeTimeoutMs: 30_000, tell };
  const registry = new Map([["p", behindInterceptors(provider, around)]]);
  return { target: registryTools(registry, tell), tell };
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
