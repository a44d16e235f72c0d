// Fills an assistant's turn with an answer: text as it comes, then why it ended, how fast it was and by which route.

import { getJson } from "../shared/gateway.js";
import { complete } from "./completions.js";
import { messagesUpTo, touch } from "./conversation.js";

// Resolves when the turn is over, whatever ended it: turn.reason says. onChange is called after every change.
// Returns the error that ended it, or null.
export async function answer(conversation, turn, signal, onChange) {
  const measured = { startedMs: performance.now(), firstMs: null, lastMs: null, nChunks: 0, usage: null };
  let answerId = null;
  let failure = null;
  try {
    const messages = messagesUpTo(conversation, turn.parent);
    for await (const chunk of complete(turn.model, messages, conversation.settings, signal)) {
      answerId ??= chunk.id;
      if (chunk.usage) measured.usage = chunk.usage;
      if (chunk.text) take(turn, chunk.text, measured);
      if (chunk.reason) turn.reason = chunk.reason;
      onChange();
    }
    turn.reason ??= "stop";
  } catch (error) {
    turn.reason = error.name === "AbortError" ? "stopped" : "failed";
    if (turn.reason === "failed") {
      failure = error;
      turn.error = error.message;
    }
  }
  turn.stats = stats(measured);
  touch(conversation);
  onChange();
  if (answerId && measured.nChunks) {
    turn.stats = { ...turn.stats, ...(await routeTaken(answerId)) };
    onChange();
  }
  return failure;
}

function take(turn, text, measured) {
  measured.lastMs = performance.now();
  measured.firstMs ??= measured.lastMs;
  measured.nChunks += 1;
  turn.text += text;
  turn.stats = stats(measured);
}

// The rate is that after the first token, as the gateway measures it. Until usage is told, a chunk counts as a token.
function stats({ startedMs, firstMs, lastMs, nChunks, usage }) {
  if (firstMs === null) return null;
  const nTokens = usage?.completion_tokens ?? nChunks;
  const seconds = (lastMs - firstMs) / 1000;
  const tokensPerS = nTokens > 1 && seconds > 0 ? (nTokens - 1) / seconds : 0;
  return { nTokens, tokensPerS, firstS: (firstMs - startedMs) / 1000, hops: null, nReplays: 0 };
}

async function routeTaken(answerId) {
  try {
    const taken = await getJson(`/swarm/routes/${encodeURIComponent(answerId)}.json`);
    return taken.hops.length ? { hops: taken.hops, nReplays: taken.n_replays } : {};
  } catch {
    return {}; // the answer is what counts; its route is a courtesy
  }
}
