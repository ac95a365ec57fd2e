export { loadConfig } from "./config/load.ts";
export type { Config, ProviderConfig } from "./config/schema.ts";
export { ERRORS, type ErrorCode, HangarError } from "./errors.ts";
export { createHangar, type Hangar, type HangarOptions } from "./hangar.ts";
export type { HangarEvent, Tell } from "./observe/events.ts";
export { VERSION } from "./version.ts";
