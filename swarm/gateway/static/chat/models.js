// Which models there are, and whether their swarms can answer: the picker and the words beside it.

import { getJson } from "../shared/gateway.js";
import { h } from "../shared/dom.js";
import { plural, spanText } from "../shared/words.js";

const ASK_AGAIN_MS = 5000;
const CHOSEN = "swarm.model";

export class ModelPicker {
  // onModels(): when the list changed; onRefused(): when the gateway wants a key.
  constructor(select, pill, { onModels, onRefused }) {
    this.select = select;
    this.pill = pill;
    this.onModels = onModels;
    this.onRefused = onRefused;
    this.names = [];
    this.chatless = new Set(); // names of base models: they complete text, and answer no conversation
    this.states = new Map();
    select.addEventListener("change", () => {
      localStorage.setItem(CHOSEN, select.value);
      this.showState();
    });
    document.addEventListener("visibilitychange", () => this.poll());
  }

  get chosen() {
    return this.select.value || null;
  }

  get canChat() {
    return this.chosen !== null && !this.chatless.has(this.chosen);
  }

  // For a conversation's model; one that is not served any more leaves the choice as it is.
  choose(name) {
    if (this.names.includes(name)) this.select.value = name;
    this.showState();
  }

  async poll() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    try {
      await this.ask();
    } catch (error) {
      if (error.status === 401 || error.status === 403) this.onRefused();
      this.say("bad", error.status === 401 ? "a key is needed" : "no connection", error.message);
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), ASK_AGAIN_MS);
  }

  async ask() {
    const [{ models }, { data }] = await Promise.all([getJson("/swarm/state.json"), getJson("/v1/models")]);
    this.states = new Map(models.map((model) => [model.name, model]));
    const names = data.map((model) => model.id);
    this.chatless = new Set(data.filter((model) => model.capabilities?.completion_chat === false).map((model) => model.id));
    if (names.join("\n") !== this.names.join("\n")) {
      const wanted = this.chosen ?? localStorage.getItem(CHOSEN);
      this.names = names;
      this.select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
      if (names.includes(wanted)) this.select.value = wanted;
      this.onModels();
    }
    this.select.disabled = names.length < 2;
    this.select.hidden = names.length === 0;
    this.showState();
  }

  showState() {
    const state = this.states.get(this.chosen) ?? [...this.states.values()][0];
    if (!state) return;
    if (!state.hosts_per_layer) this.say("waiting", "opening", `${state.name}: ${state.problem}`);
    else if (!state.is_ready) {
      const layers = state.missing.map(spanText).join(", ");
      this.say("bad", layers ? `layers ${layers} missing` : "not ready", state.problem);
    } else {
      const nServing = state.nodes.filter((node) => node.state === "serving").length;
      this.say("good", plural(nServing, "node"), "Every layer is served. Look at the swarm");
    }
  }

  say(kind, words, title) {
    this.pill.replaceChildren(h(`span.dot.${kind}`), h("span", words));
    this.pill.title = title;
  }
}
