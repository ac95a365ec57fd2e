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
  max_message_bytes: effect("max_message_bytes refuses a larger message"),
};
