/**
 * The error table: everything Hangar itself can refuse or fail, in one place.
 * The troubleshooting page is generated from it, and clients see `code` as `data.code`.
 */

interface ErrorEntry {
  /** The class name clients of the original registry know, shown as `type`. */
  readonly type: string;
  /** JSON-RPC 2.0 error code. */
  readonly jsonrpc: number;
  /** HTTP status where the error ends an HTTP exchange by itself. */
  readonly http: number;
  /** True when the same request may succeed later without anybody changing anything. */
  readonly retryable: boolean;
  /** What happened, in one sentence. */
  readonly cause: string;
  /** What to do about it, in one sentence. */
  readonly fix: string;
}

const INVALID_REQUEST = -32600;
const METHOD_NOT_FOUND = -32601;
const INVALID_PARAMS = -32602;
const INTERNAL_ERROR = -32603;
const PARSE_ERROR = -32700;
/** MCP 2026-07-28, "HeaderMismatch". */
const HEADER_MISMATCH = -32020;
/** MCP 2026-07-28, "UnsupportedProtocolVersion". */
const UNSUPPORTED_PROTOCOL_VERSION = -32022;

export const ERRORS = {
  provider_not_found: {
    type: "ProviderNotFoundError",
    jsonrpc: INVALID_PARAMS,
    http: 404,
    retryable: false,
    cause: "No provider of that name is configured.",
    fix: "Call registry_list for the names there are; names are case-sensitive.",
  },
  tool_not_found: {
    type: "ToolNotFoundError",
    jsonrpc: INVALID_PARAMS,
    http: 404,
    retryable: false,
    cause:
      "The provider lists no tool of that name, or the configuration hides it (`tools.allow`, `tools.deny`).",
    fix: "Call registry_tools for the tools the provider offers.",
  },
  invalid_arguments: {
    type: "ValidationError",
    jsonrpc: INVALID_PARAMS,
    http: 400,
    retryable: false,
    cause: "An argument of the call is missing, unknown or of the wrong kind.",
    fix: "Compare the call with the tool's input schema; the message names the argument.",
  },
  start_failed: {
    type: "ProviderStartError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: true,
    cause:
      "The provider did not come up: it exited, answered the handshake with an error, or answered garbage.",
    fix: "Read the exit code and the last lines of output in the message, run the command by hand, then call registry_start.",
  },
  not_startable: {
    type: "ProviderStartError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: false,
    cause:
      "The provider cannot start until something is mended: the command does not exist or may not be run, or its configuration cannot be used.",
    fix: "Mend what the message names, then call registry_start.",
  },
  start_timeout: {
    type: "ProviderStartError",
    jsonrpc: INTERNAL_ERROR,
    http: 504,
    retryable: true,
    cause: "The provider did not finish its handshake within `startup_timeout_s`.",
    fix: "Raise `startup_timeout_s` if it is slow to install or start; otherwise check that the command is an MCP server on stdio.",
  },
  provider_degraded: {
    type: "ProviderDegradedError",
    jsonrpc: INTERNAL_ERROR,
    http: 503,
    retryable: true,
    cause: "The provider failed and waits for its next retry.",
    fix: "Call again after `retryAfterMs`, or call registry_start to start it now.",
  },
  provider_dead: {
    type: "CannotStartProviderError",
    jsonrpc: INTERNAL_ERROR,
    http: 503,
    retryable: false,
    cause:
      "The provider failed in a way that retrying does not mend, such as a command that does not exist, or it crashed `restart.limit` times within `restart.window_s`.",
    fix: "Mend what the message names, then call registry_start.",
  },
  provider_stopped: {
    type: "ProviderNotReadyError",
    jsonrpc: INTERNAL_ERROR,
    http: 503,
    retryable: true,
    cause: "The provider was stopped while the call was waiting or running.",
    fix: "Call again; the provider starts on use.",
  },
  provider_exited: {
    type: "ProviderNotReadyError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: false,
    cause:
      "The provider's process ended while the call was running, so the call may or may not have taken effect.",
    fix: "Check whether the call took effect before you repeat it; registry_details shows the last exit and lines of output, `mcp-hangar logs` more of them.",
  },
  remote_unreachable: {
    type: "ProviderNotReadyError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: true,
    cause: "The remote provider cannot be reached; nothing was sent to it.",
    fix: "Check `endpoint`, and that the server is up; the message has the network's own words.",
  },
  remote_failed: {
    type: "ProviderNotReadyError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: true,
    cause:
      "The remote provider did not answer as MCP over HTTP should: an error status, a redirect elsewhere, or a connection that broke.",
    fix: "Read the status in the message; `details.status` has it. If the request was sent, check whether it took effect before you repeat it.",
  },
  remote_unauthorized: {
    type: "AccessError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: false,
    cause: "The remote provider wants other credentials than those in `headers`.",
    fix: "Set `headers` of the provider, such as `Authorization: Bearer ${TOKEN}`, then call registry_start.",
  },
  session_lost: {
    type: "ProviderNotReadyError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: true,
    cause: "The remote provider has forgotten Hangar's session, twice in a row.",
    fix: "Call again; if it goes on, the server ends its sessions too early.",
  },
  timeout: {
    type: "ToolTimeoutError",
    jsonrpc: INTERNAL_ERROR,
    http: 504,
    retryable: false,
    cause: "The call did not end within its deadline; the provider was told to cancel it.",
    fix: "Give the call a longer `timeout`, or raise `timeout_s` of the provider.",
  },
  cancelled: {
    type: "ToolInvocationError",
    jsonrpc: INTERNAL_ERROR,
    http: 499,
    retryable: false,
    cause: "The client cancelled the call or went away.",
    fix: "Nothing to do; call again if the answer is still wanted.",
  },
  overloaded: {
    type: "ToolInvocationError",
    jsonrpc: INTERNAL_ERROR,
    http: 503,
    retryable: true,
    cause:
      "There is no room for one more: the provider reads more slowly than it is called, or a limit on clients, sessions or calls is reached (`max_concurrency` and `max_queue` of the provider, `max_calls`, `rate_limit`).",
    fix: "Call again after `retryAfterMs`; make fewer calls at once, or raise the limit that the message names.",
  },
  circuit_open: {
    type: "ProviderDegradedError",
    jsonrpc: INTERNAL_ERROR,
    http: 503,
    retryable: true,
    cause:
      "The provider's circuit breaker is open: too many of its last calls failed, so none is sent to it for a while, or few to try it out.",
    fix: "Call again after `retryAfterMs`; registry_details shows what failed, and registry_start closes the breaker at once.",
  },
  tool_failed: {
    type: "ToolInvocationError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: false,
    cause: "The provider answered the call with a JSON-RPC error.",
    fix: "Read the provider's own code, message and data in `details.error`.",
  },
  provider_refused: {
    type: "ToolInvocationError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: true,
    cause: "The provider answered a request of Hangar itself, such as tools/list, with an error.",
    fix: "The message has the provider's own words; if it says nothing useful, look at its log.",
  },
  unreadable_answer: {
    type: "ToolInvocationError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: false,
    cause:
      "The provider answered with something that is no acceptable message: too long, not UTF-8, bad JSON, a key twice.",
    fix: "Raise `max_message_bytes` if the answer is just large; otherwise the provider is at fault. Check whether the call took effect before you repeat it.",
  },
  not_translatable: {
    type: "ToolInvocationError",
    jsonrpc: INTERNAL_ERROR,
    http: 502,
    retryable: false,
    cause: "The provider answered with something this client's protocol revision has no form for.",
    fix: "Use a client of the provider's protocol revision, or a tool that asks nothing back.",
  },
  shutting_down: {
    type: "ProviderNotReadyError",
    jsonrpc: INTERNAL_ERROR,
    http: 503,
    retryable: true,
    cause:
      "Hangar is shutting down: it takes no new calls, or the time for those under way is over.",
    fix: "Call again when it is back; where the error says `sent`, check first whether the call took effect.",
  },
  parse_error: {
    type: "ValidationError",
    jsonrpc: PARSE_ERROR,
    http: 400,
    retryable: false,
    cause: "The message is not valid JSON or not valid UTF-8.",
    fix: "Send one JSON-RPC 2.0 message as UTF-8 JSON.",
  },
  invalid_message: {
    type: "ValidationError",
    jsonrpc: INVALID_REQUEST,
    http: 400,
    retryable: false,
    cause: "The message is JSON but not an acceptable JSON-RPC 2.0 message.",
    fix: "Send one object with `jsonrpc`, and `method` or `result` or `error`; no key twice, no batch, at most 64 levels deep.",
  },
  message_too_large: {
    type: "ValidationError",
    jsonrpc: INVALID_REQUEST,
    http: 413,
    retryable: false,
    cause: "The message is larger than `max_message_bytes`.",
    fix: "Send less, or raise `max_message_bytes` in the configuration.",
  },
  invalid_params: {
    type: "ValidationError",
    jsonrpc: INVALID_PARAMS,
    http: 400,
    retryable: false,
    cause: "The request lacks a parameter that its method or protocol revision requires.",
    fix: "Add what the message names.",
  },
  method_not_found: {
    type: "ValidationError",
    jsonrpc: METHOD_NOT_FOUND,
    http: 404,
    retryable: false,
    cause: "Hangar does not offer that method to clients of this protocol revision.",
    fix: "See the capabilities in the answer to `initialize` or `server/discover`.",
  },
  header_mismatch: {
    type: "ValidationError",
    jsonrpc: HEADER_MISMATCH,
    http: 400,
    retryable: false,
    cause: "A required HTTP header is missing or does not agree with the message body.",
    fix: "Send `MCP-Protocol-Version`, `Mcp-Method` and, where the method or tool asks for them, `Mcp-Name` and `Mcp-Param-*` with the values of the body.",
  },
  unsupported_version: {
    type: "ValidationError",
    jsonrpc: UNSUPPORTED_PROTOCOL_VERSION,
    http: 400,
    retryable: false,
    cause: "The request names a protocol revision that Hangar does not speak.",
    fix: "Use one of `data.supported`.",
  },
  session_required: {
    type: "ValidationError",
    jsonrpc: INVALID_REQUEST,
    http: 400,
    retryable: false,
    cause: "The request carries no `Mcp-Session-Id`, and its protocol revision has sessions.",
    fix: "Send `initialize` first and repeat the session id of its answer on every request.",
  },
  session_not_found: {
    type: "ValidationError",
    jsonrpc: INVALID_REQUEST,
    http: 404,
    retryable: true,
    cause: "The session is unknown: it expired, was deleted, or Hangar was restarted.",
    fix: "Send `initialize` again.",
  },
  not_acceptable: {
    type: "ValidationError",
    jsonrpc: INVALID_REQUEST,
    http: 406,
    retryable: false,
    cause: "The client accepts neither JSON nor an event stream.",
    fix: "Send `Accept: application/json, text/event-stream`.",
  },
  unsupported_media_type: {
    type: "ValidationError",
    jsonrpc: INVALID_REQUEST,
    http: 415,
    retryable: false,
    cause: "The body's Content-Type is not application/json.",
    fix: "Send `Content-Type: application/json`.",
  },
  unauthorized: {
    type: "AccessError",
    jsonrpc: INVALID_REQUEST,
    http: 401,
    retryable: false,
    cause:
      "The client is not on this machine, or came through a proxy, and presented no valid token.",
    fix: "Send `Authorization: Bearer <token>`: the value of MCP_HANGAR_TOKEN, or of the file `token` in Hangar's state directory.",
  },
  forbidden: {
    type: "AccessError",
    jsonrpc: INVALID_REQUEST,
    http: 403,
    retryable: false,
    cause: "The Host or Origin header names a site that may not use this Hangar from a browser.",
    fix: "Use localhost in the URL, list the origin in `allowed_origins`, or present the token.",
  },
  config_invalid: {
    type: "ConfigurationError",
    jsonrpc: INTERNAL_ERROR,
    http: 500,
    retryable: false,
    cause: "The configuration file cannot be used.",
    fix: "Mend the lines the message names; `mcp-hangar config check` shows them all.",
  },
  config_not_found: {
    type: "ConfigurationError",
    jsonrpc: INTERNAL_ERROR,
    http: 500,
    retryable: false,
    cause: "The configuration file that was named does not exist.",
    fix: "Check the path given by --config or MCP_CONFIG.",
  },
  port_in_use: {
    type: "ConfigurationError",
    jsonrpc: INTERNAL_ERROR,
    http: 500,
    retryable: false,
    cause: "Another program listens on the port.",
    fix: "Stop that program, or choose another port with --port or MCP_HTTP_PORT.",
  },
  internal: {
    type: "MCPError",
    jsonrpc: INTERNAL_ERROR,
    http: 500,
    retryable: false,
    cause: "A defect in Hangar.",
    fix: "Report it with the log around it.",
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

interface ErrorOptions {
  /** More facts for the client; must be JSON. */
  readonly details?: Record<string, unknown>;
  /** How long to wait before the same request has a chance, in milliseconds. */
  readonly retryAfterMs?: number | undefined;
  /** Whether the request had gone to the provider, so that it may have taken effect. Default false. */
  readonly sent?: boolean;
  /** Of a request that had gone: not a byte of an answer has come, nor will it. Default false. */
  readonly unanswered?: boolean;
  readonly cause?: unknown;
}

/** The one error class. As the end of a call it is the failure that is ours, not the provider's. */
export class HangarError extends Error {
  readonly kind = "failure";
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;
  readonly retryAfterMs: number | undefined;
  readonly sent: boolean;
  readonly unanswered: boolean;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "HangarError";
    this.code = code;
    this.details = options.details ?? {};
    this.retryAfterMs = options.retryAfterMs;
    this.sent = options.sent ?? false;
    this.unanswered = options.unanswered ?? false;
  }

  /** The same failure with more to say about it. */
  with(more: ErrorOptions): HangarError {
    const { message, retryAfterMs, sent, unanswered, cause } = this;
    const details = { ...this.details, ...more.details };
    return new HangarError(this.code, message, {
      ...{ retryAfterMs, sent, unanswered, cause },
      ...more,
      details,
    });
  }

  /** The same failure, of a request that had gone to the provider. */
  whenSent(): HangarError {
    return this.with({ sent: true });
  }
}

/** `thrown` as a HangarError; what is not one already is a defect, `internal`. */
export function toHangarError(thrown: unknown): HangarError {
  if (thrown instanceof HangarError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new HangarError("internal", message, { cause: thrown });
}

/** The `data` member of a JSON-RPC error object for `error`. */
function errorData(error: HangarError): Record<string, unknown> {
  return {
    code: error.code,
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: Math.ceil(error.retryAfterMs) }),
    ...(error.sent ? { sent: true } : {}),
    ...error.details,
  };
}

/** `error` as the JSON-RPC 2.0 error object, as text. */
export function jsonRpcError(error: HangarError): string {
  return JSON.stringify({
    code: ERRORS[error.code].jsonrpc,
    message: error.message,
    data: errorData(error),
  });
}
