import { createHash, randomUUID } from "node:crypto";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import type { Config, ProviderConfig } from "./config/schema.ts";
import type { Driver } from "./drivers/driver.ts";
import { createGuardian, type Guardian } from "./drivers/guardian.ts";
import { remote } from "./drivers/remote.ts";
import { subprocess } from "./drivers/subprocess.ts";
import { registerInstance, sweep } from "./drivers/sweep.ts";
import { HangarError } from "./errors.ts";
import { ownFace, relayFace } from "./front/endpoint.ts";
import type { Front } from "./front/front.ts";
import { type HttpFront, serveHttp } from "./front/http.ts";
import { INVOKE_TIMEOUT_S, registryTools } from "./front/registry-tools.ts";
import { serveStdio } from "./front/stdio.ts";
import { healthLoops } from "./loops/health.ts";
import { idleLoop } from "./loops/idle.ts";
import type { Tell } from "./observe/events.ts";
import { createProviderLogs } from "./observe/provider-logs.ts";
import { ClientRuns } from "./providers/client-runs.ts";
import { EraVerdicts } from "./providers/era-verdicts.ts";
import { Provider } from "./providers/provider.ts";
import { findProvider, type Registered, type Registry } from "./providers/registry.ts";
import { StartGate } from "./providers/start-gate.ts";
import { behindInterceptors } from "./routing/interceptors.ts";
import { Room } from "./routing/limit.ts";
import { RateLimit, rateLimited } from "./routing/rate-limit.ts";
import type { Target } from "./target.ts";

export interface HangarOptions {
  readonly config: Config;
  /** Folder for what outlives the process; without it everything is kept in memory. */
  readonly stateDir: string | undefined;
  readonly tell: Tell;
}

/** A running Hangar: its providers, and the fronts it was asked to open. */
export interface Hangar {
  readonly registry: Registry;
  /** Serves the registry tools, or the one provider named. Throws `provider_not_found`. */
  serveStdio(
    streams: { readonly input: Readable; readonly output: Writable },
    provider?: string,
  ): Front;
  /** Throws `port_in_use`. */
  serveHttp(options: { host: string; port: number; token: string }): Promise<HttpFront>;
  /** Lets calls under way end within `shutdown_grace_s`, then stops every provider; nothing is left when it settles. */
  close(reason: string): Promise<void>;
}

/** The whole program: drivers, providers, interceptors, registry tools, loops, wired once. */
export function createHangar({ config, stateDir, tell: told }: HangarOptions): Hangar {
  const logs = createProviderLogs({
    folder: stateDir === undefined ? undefined : join(stateDir, "logs"),
    maxBytes: config.logging.provider_log_max_bytes,
    files: config.logging.provider_log_files,
    tell: told,
  });
  const tell: Tell = (event) => {
    logs.take(event);
    told(event);
  };
  const guardian = createGuardian(randomUUID(), tell);
  const instances = stateDir === undefined ? undefined : join(stateDir, "instances");
  const swept = instances === undefined ? undefined : sweep(instances, tell);
  const unregister =
    instances === undefined ? undefined : registerInstance(instances, guardian.instance);
  const eras = new EraVerdicts(stateDir === undefined ? undefined : join(stateDir, "eras.json"));
  const starts = new StartGate(availableParallelism());
  const around = {
    room: new Room(config.max_calls),
    invokeTimeoutMs: INVOKE_TIMEOUT_S * 1000,
    tell,
  };
  const limited = requestLimit(config, tell);
  const registry = new Map<string, Registered>();
  const faces = new Map<string, Target>();
  const perClient: ClientRuns[] = [];
  const loops = new AbortController();
  for (const [name, entry] of config.providers) {
    if (!entry.enabled) continue;
    const driver = driverFor(entry, guardian, config.max_message_bytes);
    const options = { name, config: entry, driver, eraKey: eraKey(entry), eras, tell, starts };
    let registered = behindInterceptors(new Provider(options), around);
    if (entry.scope === "session") {
      const runs = new ClientRuns({
        name,
        make: (ownCapabilities) =>
          behindInterceptors(new Provider({ ...options, ownCapabilities }), around),
        adopt: ({ provider }) => lookAfter([provider], loops.signal).end,
        tell,
      });
      perClient.push(runs);
      registered = { ...registered, target: runs.face("target"), relay: runs.face("relay") };
    }
    registry.set(name, registered);
    faces.set(name, limited(relayFace(registered.relay, entry.startup_timeout_s * 1000, tell)));
  }
  const providers = [...registry.values()].map(({ provider }) => provider);
  const looking = lookAfter(providers, loops.signal);
  faces.set("", limited(ownFace(registryTools(registry, tell), tell)));
  const front = { maxMessageBytes: config.max_message_bytes, tell };
  const fronts: Front[] = [];

  return {
    registry,
    serveStdio(streams, provider = "") {
      if (provider !== "") findProvider(registry, provider);
      const opened = serveStdio(faces.get(provider) as Target, streams, front);
      fronts.push(opened);
      return opened;
    },
    async serveHttp(options) {
      const { allowed_origins } = config;
      const opened = await serveHttp(faces, { ...front, ...options, allowed_origins });
      fronts.push(opened);
      return opened;
    },
    async close(reason) {
      tell({ type: "shutting_down", reason });
      loops.abort();
      const runners = [...providers, ...perClient];
      const over = new HangarError("shutting_down", "Hangar shuts down");
      for (const one of runners) one.startNoMore(over);
      const graceMs = config.shutdown_grace_s * 1000;
      await Promise.all(fronts.map((opened) => opened.drain(graceMs)));
      await Promise.all(runners.map((one) => one.close(over)));
      await looking.ended;
      await swept;
      await logs.close();
      guardian.close();
      unregister?.();
    },
  };
}

/** What lets each principal make so many requests only, if the configuration says how many. */
function requestLimit({ rate_limit }: Config, tell: Tell): (target: Target) => Target {
  if (rate_limit === undefined) return (target) => target;
  const { rps, burst = Math.max(1, Math.ceil(2 * rps)) } = rate_limit;
  const limit = new RateLimit(rps, burst);
  return (target) => rateLimited(target, limit, tell);
}

/** Starts the loops that check providers and stop the idle ones. */
function lookAfter(
  providers: readonly Provider[],
  signal: AbortSignal,
): { readonly end: () => void; readonly ended: Promise<unknown> } {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const ended = Promise.all([healthLoops(providers, either), idleLoop(providers, either)]);
  return { end: () => stop.abort(), ended };
}

/** The one place that maps a provider's mode to the driver that runs it. */
function driverFor(entry: ProviderConfig, guardian: Guardian, maxMessageBytes: number): Driver {
  const { unusable } = entry;
  if (unusable !== undefined) {
    return { start: () => Promise.reject(new HangarError("not_startable", unusable)) };
  }
  if (entry.endpoint !== undefined) {
    return remote({
      endpoint: entry.endpoint,
      headers: entry.headers,
      maxMessageBytes,
    });
  }
  return subprocess({
    command: entry.command,
    cwd: entry.cwd,
    env: entry.env,
    inherit_env: entry.inherit_env,
    maxLineBytes: maxMessageBytes,
    guardian,
  });
}

/** Changes with whatever may change which server answers; values of variables are left out, as they may be secrets. */
function eraKey({ mode, command, cwd, env, endpoint }: ProviderConfig): string {
  const runs = JSON.stringify([mode, command, cwd, Object.keys(env), endpoint]);
  return createHash("sha256").update(runs).digest("hex");
}
