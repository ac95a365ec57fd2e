import { type Members, membersOf, type Message, type Span, stringAt, wholeOf } from "./envelope.ts";

/** What Hangar declares to a provider whose run many clients share: whatever any of them may be able to answer. */
export const SHARED_CAPABILITIES =
  '{"roots":{"listChanged":true},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}}}';

/**
 * The capability that a client must have declared to be asked `question`, as a path into its capabilities;
 * undefined for methods that the protocol does not know.
 */
function capabilityFor({ method, text, body }: Message): readonly string[] | undefined {
  switch (method) {
    case "roots/list":
      return ["roots"];
    case "sampling/createMessage":
      return body.has("tools") ? ["sampling", "tools"] : ["sampling"];
    case "elicitation/create":
      return stringAt(text, body.get("mode")) === "url" ? ["elicitation", "url"] : ["elicitation"];
    default:
      return undefined;
  }
}

/** The capability that is missing in `declared` (raw JSON of a client's capabilities) to be asked `question`. */
export function missingCapability(declared: string, question: Message): string | undefined {
  const path = capabilityFor(question);
  if (path === undefined) return undefined;
  let at = declaredAt(declared, wholeOf(declared));
  for (const step of path) {
    const span = at?.get(step);
    if (span === undefined) return path.join(".");
    at = declaredAt(declared, span);
  }
  // `elicitation: {}` has always meant forms; a client that names its modes must name this one, too.
  const isForm = question.method === "elicitation/create" && path.length === 1;
  return isForm && at !== undefined && at.size > 0 && !at.has("form")
    ? "elicitation.form"
    : undefined;
}

/** What a client says of itself was not looked into before; one that says something twice declares nothing there. */
function declaredAt(declared: string, span: Span): Members | undefined {
  try {
    return membersOf(declared, span);
  } catch {
    return undefined;
  }
}
