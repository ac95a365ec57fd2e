import { testTarget } from "../target-contract.ts";

testTarget("a provider", { target: ({ provider }) => provider });
