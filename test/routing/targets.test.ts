import { deadline } from "../../src/routing/deadline.ts";
import { listedOnly, offeredOnly } from "../../src/routing/policy.ts";
import { testTarget } from "../target-contract.ts";

const PATIENT_MS = 30_000;
const ALL = { allow: ["*"], deny: [] };

testTarget("deadline()", { target: ({ provider }) => deadline(provider, PATIENT_MS) });

testTarget("offeredOnly()", {
  target: ({ provider, events }) => offeredOnly(provider, ALL, (event) => events.push(event)),
});

testTarget("listedOnly()", {
  target: ({ provider, events }) => listedOnly(provider, provider, (event) => events.push(event)),
});
