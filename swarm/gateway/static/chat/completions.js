// One answer from /v1/chat/completions, as it comes.

import { GatewayError, call } from "../shared/gateway.js";
import { dataOf } from "./sse.js";

// Yields {id, text, reason, usage}: text is what was added; reason and usage are null until the end tells them.
// Throws: GatewayError; AbortError when signal says so.
export async function* complete(model, messages, settings, signal) {
  const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...sampling(settings) };
  const response = await call("/v1/chat/completions", { method: "POST", body, signal });
  let ended = false;
  for await (const data of dataOf(response.body)) {
    if (data === "[DONE]") continue; // read on to the end: leaving here would look like a client that went away
    const chunk = JSON.parse(data);
    if (chunk.error || chunk.object === "error") {
      throw new GatewayError(chunk.error?.message ?? chunk.message ?? "The answer broke off.", 0);
    }
    const choice = chunk.choices?.[0];
    ended ||= Boolean(choice?.finish_reason);
    yield {
      id: chunk.id ?? null,
      text: textOf(choice?.delta?.content),
      reason: choice?.finish_reason ?? null,
      usage: chunk.usage ?? null,
    };
  }
  if (!ended) throw new GatewayError("The connection to the gateway broke off in the middle of the answer.", 0);
}

// Only what was set: the gateway's own defaults hold for the rest.
function sampling({ temperature, topP, maxTokens, seed, stop }) {
  const body = {};
  if (temperature !== null) body.temperature = temperature;
  if (topP !== null) body.top_p = topP;
  if (maxTokens !== null) body.max_tokens = maxTokens;
  if (seed !== null) body.seed = seed;
  if (stop.length) body.stop = stop;
  return body;
}

function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}
