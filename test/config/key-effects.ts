/** Where the effect of a configuration key is proved: a test file under test/, and the title of the test in it. */
export interface Proof {
  readonly file: string;
  readonly title: string;
}

const EFFECTS = "e2e/config-effects.test.ts";
const PROVIDER_LOGS = "e2e/provider-logs.test.ts";

function effect(title: string): Proof {
  return { file: EFFECTS, title };
}

function breaker(title: string): Proof {
  return { file: "e2e/breaker.test.ts", title };
}

const TOOLS_RETRIED: Proof = {
  file: "e2e/retry.test.ts",
  title: "is sent again as trust_annotations and retry say: %s",
};

function restart(title: string): Proof {
  return { file: "e2e/restart.test.ts", title };
}

const RATE_LIMIT: Proof = {
  file: "e2e/limits.test.ts",
  title:
    "lets a burst through, then so many requests per second, and refuses the others with retryAfterMs",
};

/** Every key of the configuration file, and the test that shows what it does from outside. */
export const KEY_EFFECTS: Readonly<Record<string, Proof>> = {
  providers: effect("providers are listed under the names they have in the file"),
  "providers.<id>.mode": effect(
    "mode decides how a provider is run, and one not built yet leaves it dead with the reason",
  ),
  "providers.<id>.command": effect("command runs the program with its arguments as they stand"),
  "providers.<id>.env": effect("env reaches the provider's process"),
  "providers.<id>.inherit_env": effect("inherit_env hands on the variables it names and no others"),
  "providers.<id>.cwd": effect(
    "cwd is where the provider runs, by default the configuration file's folder",
  ),
  "providers.<id>.enabled": effect(
    "enabled false leaves a provider out of the list and refuses calls to it",
  ),
  "providers.<id>.description": effect("description appears in registry_list"),
  "providers.<id>.idle_ttl_s": effect("idle_ttl_s stops an idle provider"),
  "providers.<id>.health_check_interval_s": effect(
    "health_check_interval_s sets how often a provider is asked whether it is well",
  ),
  "providers.<id>.max_consecutive_failures": effect(
    "max_consecutive_failures is how many failures make a provider degraded",
  ),
  "providers.<id>.startup_timeout_s": effect("startup_timeout_s ends a start that never answers"),
  "providers.<id>.timeout_s": effect("timeout_s ends a call that names no timeout of its own"),
  "providers.<id>.max_timeout_s": effect(
    "max_timeout_s ends any call, whatever its progress and whatever the caller asks for",
  ),
  "providers.<id>.tool_timeouts_s": effect(
    "tool_timeouts_s stands in for timeout_s for the tools that match",
  ),
  "providers.<id>.max_concurrency": {
    file: "e2e/limits.test.ts",
    title:
      "works on max_concurrency calls at once, the others one after the other in the order they came",
  },
  "providers.<id>.max_queue": {
    file: "e2e/limits.test.ts",
    title:
      "R10: has a full queue, and what overflows is refused at once, while another provider is as quick as before",
  },
  "providers.<id>.circuit_breaker": breaker(
    "R8: opens when too many calls fail, refuses at once with retryAfterMs, and closes when a trial succeeds",
  ),
  "providers.<id>.circuit_breaker.failure_rate": effect(
    "circuit_breaker.failure_rate and min_calls decide when the breaker opens",
  ),
  "providers.<id>.circuit_breaker.slow_call_s": effect(
    "circuit_breaker.slow_call_s makes slow calls count as failed",
  ),
  "providers.<id>.circuit_breaker.min_calls": effect(
    "circuit_breaker.failure_rate and min_calls decide when the breaker opens",
  ),
  "providers.<id>.circuit_breaker.open_s": breaker("stays open twice as long when the trial fails"),
  "providers.<id>.circuit_breaker.half_open_calls": breaker(
    "R8: of a thousand calls at once tries out exactly half_open_calls, and refuses the others at once",
  ),
  "providers.<id>.circuit_breaker.force": effect(
    "circuit_breaker.force opens the breaker or keeps it closed",
  ),
  "providers.<id>.trust_annotations": TOOLS_RETRIED,
  "providers.<id>.retry": TOOLS_RETRIED,
  "providers.<id>.retry.tools": TOOLS_RETRIED,
  "providers.<id>.retry.budget": TOOLS_RETRIED,
  "providers.<id>.restart": restart(
    "R5: again and again, is dead by a crash loop after restart.limit failures, and a manual start leads out",
  ),
  "providers.<id>.restart.limit": restart(
    "R5: again and again, is dead by a crash loop after restart.limit failures, and a manual start leads out",
  ),
  "providers.<id>.restart.window_s": effect(
    "restart.window_s is the time in which crashes are counted",
  ),
  "providers.<id>.restart.healthy_s": restart(
    "is forgiven after restart.healthy_s, and stops count for nothing",
  ),
  "providers.<id>.protocol": effect("protocol decides which handshake a provider gets first"),
  "providers.<id>.tools": effect("tools.deny wins over tools.allow"),
  "providers.<id>.tools.allow": effect("tools.allow offers only the tools that match"),
  "providers.<id>.tools.deny": effect("tools.deny hides a tool and refuses calls to it"),
  "providers.<id>.scope": effect("scope session gives each client a run of its own"),
  "providers.<id>.endpoint": effect("endpoint is where a remote provider is called"),
  "providers.<id>.headers": effect("headers are sent with every request to the endpoint"),
  mcpServers: effect("mcpServers of a client's own file are served as they are"),
  "mcpServers.<id>.command": effect("mcpServers of a client's own file are served as they are"),
  "mcpServers.<id>.args": effect("mcpServers of a client's own file are served as they are"),
  "mcpServers.<id>.env": effect("env of an mcpServers entry reaches the provider's process"),
  "mcpServers.<id>.cwd": effect("cwd of an mcpServers entry is where the provider runs"),
  "mcpServers.<id>.enabled": effect(
    "enabled false and disabled true leave an mcpServers entry out",
  ),
  "mcpServers.<id>.disabled": effect(
    "enabled false and disabled true leave an mcpServers entry out",
  ),
  "mcpServers.<id>.type": effect("type of an mcpServers entry must fit its command"),
  "mcpServers.<id>.url": effect("url in an mcpServers entry makes a remote provider"),
  "mcpServers.<id>.headers": effect(
    "headers of an mcpServers entry are sent with every request to its url",
  ),
  logging: effect("logging.file takes the log, and stderr no longer gets it"),
  "logging.level": effect("logging.level leaves out what is less important"),
  "logging.provider_log_max_bytes": {
    file: PROVIDER_LOGS,
    title: "provider_log_max_bytes is how large one gets, provider_log_files how many there are",
  },
  "logging.provider_log_files": {
    file: PROVIDER_LOGS,
    title: "provider_log_max_bytes is how large one gets, provider_log_files how many there are",
  },
  "logging.file": effect("logging.file takes the log, and stderr no longer gets it"),
  allowed_origins: effect("allowed_origins lets a web page of that origin in and no other"),
  max_calls: {
    file: "e2e/limits.test.ts",
    title: "work on max_calls calls, and further ones are refused",
  },
  rate_limit: RATE_LIMIT,
  "rate_limit.rps": RATE_LIMIT,
  "rate_limit.burst": RATE_LIMIT,
  max_message_bytes: effect("max_message_bytes refuses a larger message"),
  shutdown_grace_s: {
    file: "e2e/drain.test.ts",
    title: "R13: shutdown_grace_s is how long it may go on, over %s (%s), then both sides are told",
  },
};
