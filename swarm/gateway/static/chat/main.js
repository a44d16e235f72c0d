// The chat page: ties conversations, their answers and what is on the page together.

import { icon } from "../shared/dom.js";
import { bindThemeButton } from "../shared/theme.js";
import { answer } from "./answering.js";
import { DEFAULTS, addTurn, choose, markCut, newConversation } from "./conversation.js";
import { bindComposer } from "./composer.js";
import { ModelPicker } from "./models.js";
import { SettingsSheet } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { ConversationStore } from "./store.js";
import { Transcript } from "./transcript.js";

const SAVE_EVERY_MS = 500;
const LAST_SETTINGS = "swarm.settings";
const byId = (id) => document.getElementById(id);

class Chat {
  constructor(store) {
    this.store = store;
    this.running = new Map(); // conversation id -> {conversation, turn, controller, savedMs}
    this.conversation = newConversation(null, lastSettings());
    this.transcript = new Transcript(byId("scroller"), byId("turns"), byId("to-end"), {
      begin: (text) => this.say(text, null),
      edit: (turn, text) => this.say(text, turn.parent),
      regenerate: (turn) => this.answer(turn.parent),
      choose: (turn) => this.choose(turn),
    });
    this.sidebar = new Sidebar(byId("sidebar"), { open: (id) => this.open(id), remove: (id) => this.remove(id) });
    this.settings = new SettingsSheet(byId("settings"), (settings) => this.set(settings), () => this.tryKey());
    this.models = new ModelPicker(byId("model"), byId("pill"), {
      onModels: () => {
        this.models.choose(this.conversation.model);
        this.show();
      },
      onRefused: () => this.askForKey(),
    });
    this.composer = bindComposer({
      send: (text) => this.say(text, this.conversation.leaf),
      stop: () => this.stop(),
      editLast: () => this.transcript.editLast(),
    });
    this.askedForKey = false;
  }

  async begin() {
    byId("new").addEventListener("click", () => this.startNew());
    byId("menu").addEventListener("click", () => this.sidebar.toggle());
    byId("configure").addEventListener("click", () => this.settings.open(this.conversation.settings));
    byId("model").addEventListener("change", () => this.show());
    addEventListener("hashchange", () => this.open(location.hash.slice(1)));
    addEventListener("pagehide", () => this.running.forEach(({ conversation }) => this.store.save(conversation)));
    addEventListener("keydown", (event) => this.onKey(event));
    byId("unsaved").hidden = this.store.isLasting;
    this.models.poll();
    if (location.hash.length > 1) await this.open(location.hash.slice(1));
    this.show();
    await this.listConversations();
    this.composer.focus();
    document.documentElement.dataset.ready = "";
  }

  // -- conversations --

  startNew() {
    this.sidebar.toggle(false);
    this.conversation = newConversation(this.models.chosen, this.conversation.settings);
    history.replaceState(null, "", location.pathname);
    this.show();
    this.listConversations();
    this.composer.focus();
  }

  async open(id) {
    if (!id || id === this.conversation.id) return;
    const running = this.running.get(id);
    const conversation = running?.conversation ?? (await this.store.load(id));
    if (!conversation) return;
    if (!running) markCut(conversation);
    this.conversation = conversation;
    history.replaceState(null, "", `#${id}`);
    this.models.choose(conversation.model);
    this.show();
    await this.listConversations();
  }

  async remove(id) {
    this.running.get(id)?.controller.abort();
    const conversation = await this.store.load(id);
    await this.store.remove(id);
    if (id === this.conversation.id) this.startNew();
    await this.listConversations();
    if (!conversation) return;
    markCut(conversation);
    this.sidebar.offerUndo(conversation.title, async () => {
      await this.store.save(conversation);
      await this.open(id);
      await this.listConversations();
    });
  }

  async save(conversation) {
    try {
      await this.store.save(conversation);
    } catch {
      byId("unsaved").hidden = false; // full, or taken away: the page goes on without
    }
  }

  async listConversations() {
    this.sidebar.show(await this.store.list(), this.conversation.id);
  }

  // -- talking --

  // A user's turn after `parent`, and its answer.
  say(text, parent) {
    if (!this.models.canChat || this.running.has(this.conversation.id)) return false;
    const turn = addTurn(this.conversation, parent, "user", text);
    history.replaceState(null, "", `#${this.conversation.id}`);
    this.transcript.follows = true;
    this.answer(turn.id);
    return true;
  }

  async answer(userTurnId) {
    const { conversation } = this;
    if (!this.models.canChat || this.running.has(conversation.id)) return;
    conversation.model = this.models.chosen;
    const turn = addTurn(conversation, userTurnId, "assistant", "");
    const run = { conversation, turn, controller: new AbortController(), savedMs: 0 };
    this.running.set(conversation.id, run);
    this.show();
    await this.save(conversation);
    await this.listConversations();
    const failure = await answer(conversation, turn, run.controller.signal, () => this.onProgress(run));
    if (failure?.status === 401) this.settings.open(this.conversation.settings, true);
    if (await this.store.load(conversation.id)) await this.save(conversation); // unless it was deleted meanwhile
    await this.listConversations();
  }

  // The answer grew, or is over; its route may still follow.
  onProgress(run) {
    const { conversation, turn } = run;
    const isShown = conversation === this.conversation;
    if (turn.reason === null) {
      if (isShown) this.transcript.grew(turn);
      if (performance.now() - run.savedMs > SAVE_EVERY_MS) {
        run.savedMs = performance.now();
        this.save(conversation);
      }
      return;
    }
    if (this.running.delete(conversation.id) && isShown) byId("announce").textContent = ending(turn);
    if (isShown) this.show();
  }

  stop() {
    this.running.get(this.conversation.id)?.controller.abort();
  }

  choose(turn) {
    if (this.running.has(this.conversation.id)) return;
    choose(this.conversation, turn);
    this.show();
    this.save(this.conversation);
  }

  // -- settings and keys --

  set(settings) {
    this.conversation.settings = settings;
    localStorage.setItem(LAST_SETTINGS, JSON.stringify(settings));
    if (this.conversation.leaf) this.save(this.conversation);
    this.showSettings();
  }

  showSettings() {
    const isSet = JSON.stringify(this.conversation.settings) !== JSON.stringify(DEFAULTS);
    byId("configure").classList.toggle("is-set", isSet);
  }

  // The page's own questions were refused. Asked once for each key: the pill goes on saying it.
  askForKey() {
    if (this.askedForKey) return;
    this.askedForKey = true;
    this.settings.open(this.conversation.settings, true);
  }

  tryKey() {
    this.askedForKey = false;
    this.models.poll();
  }

  onKey(event) {
    const isTyping = event.target.closest?.("input, textarea, select, dialog[open]");
    if (event.key === "Escape" && !event.defaultPrevented && !byId("settings").open) {
      if (this.sidebar.isOpen) this.sidebar.toggle(false);
      else this.stop();
    } else if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.composer.focus();
    } else if (event.key.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.startNew();
    }
  }

  show() {
    this.transcript.show(this.conversation, this.models);
    this.composer.show({ isRunning: this.running.has(this.conversation.id), canSend: this.models.canChat });
    document.title = this.conversation.title ? `${this.conversation.title} · swarm` : "swarm";
    byId("title").textContent = this.conversation.title || "New conversation";
    this.showSettings();
  }
}

function ending(turn) {
  return { stop: "The answer is complete.", stopped: "Stopped.", failed: `Failed: ${turn.error}` }[turn.reason] ?? "Ended.";
}

function lastSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(LAST_SETTINGS) ?? "{}") };
  } catch {
    return DEFAULTS;
  }
}

for (const element of document.querySelectorAll("[data-icon]")) element.prepend(icon(element.dataset.icon));
bindThemeButton(byId("theme"));
new Chat(await ConversationStore.open()).begin();
