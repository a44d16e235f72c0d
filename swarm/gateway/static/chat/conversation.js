// A conversation as a tree: asking again or editing adds a branch beside the old one, and nothing is lost.
// Pure: no page, no storage.
//
// {id, title, createdMs, updatedMs, model, settings, turns: {id: turn}, leaf}
// turn: {id, parent, next, role: "user"|"assistant", text, createdMs}, where next is the turn that was last shown after
//   it, or null; an assistant's also has
//   reason: "stop" | "length" | "stopped" | "failed" | "cut" | null (while it is being written)
//   error: words, or null; stats: {nTokens, tokensPerS, firstS, hops, nReplays}, or null; model

export const DEFAULTS = { system: "", temperature: null, topP: null, maxTokens: 1024, seed: null, stop: [] };

export function newConversation(model, settings = DEFAULTS) {
  const now = Date.now();
  return {
    id: crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join(""),
    title: "", createdMs: now, updatedMs: now, model, settings: { ...DEFAULTS, ...settings }, turns: {}, leaf: null,
  };
}

// Adds a turn after `parent` (null: at the beginning) and goes to it.
export function addTurn(conversation, parent, role, text) {
  const id = `t${Object.keys(conversation.turns).length}`;
  const turn = { id, parent, next: null, role, text, createdMs: Date.now() };
  if (role === "assistant") Object.assign(turn, { reason: null, error: null, stats: null, model: conversation.model });
  conversation.turns[id] = turn;
  goTo(conversation, turn);
  if (!conversation.title && role === "user") conversation.title = titleOf(text);
  touch(conversation);
  return turn;
}

export function touch(conversation) {
  conversation.updatedMs = Date.now();
}

// The turns that are shown, first to last.
export function path(conversation) {
  const turns = [];
  for (let turn = conversation.turns[conversation.leaf]; turn; turn = conversation.turns[turn.parent]) turns.push(turn);
  return turns.reverse();
}

// The turns that stand where this one stands, itself included, oldest first.
export function siblings(conversation, turn) {
  return Object.values(conversation.turns).filter((other) => other.parent === turn.parent);
}

// Goes to another of the siblings, and on to what was last shown after it.
export function choose(conversation, turn) {
  let leaf = turn;
  while (leaf.next) leaf = conversation.turns[leaf.next];
  goTo(conversation, leaf);
}

function goTo(conversation, leaf) {
  conversation.leaf = leaf.id;
  for (const turn of path(conversation)) {
    if (turn.parent) conversation.turns[turn.parent].next = turn.id;
  }
}

// What the model is told up to and including this turn. Answers that came to nothing are left out.
export function messagesUpTo(conversation, turnId) {
  const messages = [];
  if (conversation.settings.system.trim()) messages.push({ role: "system", content: conversation.settings.system });
  for (const turn of path({ ...conversation, leaf: turnId })) {
    if (turn.role === "user" || turn.text) messages.push({ role: turn.role, content: turn.text });
  }
  return messages;
}

// Answers that were being written when their page went away.
export function markCut(conversation) {
  for (const turn of Object.values(conversation.turns)) {
    if (turn.role === "assistant" && turn.reason === null) turn.reason = "cut";
  }
}

function titleOf(text) {
  const line = text.trim().split("\n")[0].trim();
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}…` : line;
}
