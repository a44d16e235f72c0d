// The swarm page: asks the gateway what its swarms look like, and shows it for as long as somebody looks.

import { h } from "../shared/dom.js";
import { getJson } from "../shared/gateway.js";
import { bindThemeButton } from "../shared/theme.js";
import { ModelView } from "./model.js";

const ASK_AGAIN_MS = 1500;

class SwarmPage {
  constructor() {
    this.models = document.getElementById("models");
    this.notice = document.getElementById("notice");
    this.fresh = document.getElementById("fresh");
    this.views = new Map(); // by model name
    document.addEventListener("visibilitychange", () => this.poll());
  }

  async poll() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    try {
      this.show(await getJson("/swarm/state.json"));
    } catch (error) {
      this.complain(error);
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), ASK_AGAIN_MS);
  }

  show({ models, age_s: ageS }) {
    this.notice.hidden = models.length > 0;
    this.notice.textContent = "The gateway has just begun to look for its swarms.";
    this.fresh.textContent = ageS > 5 ? `as of ${Math.round(ageS)} s ago` : "";
    this.models.classList.remove("is-old");
    for (const model of models) {
      let view = this.views.get(model.name);
      if (!view) {
        view = new ModelView(model.name);
        this.views.set(model.name, view);
      }
      view.show(model);
    }
    const shown = models.map((model) => this.views.get(model.name).element);
    if (shown.some((element, i) => this.models.children[i] !== element) || shown.length !== this.models.children.length) {
      this.models.replaceChildren(...shown);
    }
  }

  // What was seen last stays, greyed: it says more than an empty page.
  complain(error) {
    this.models.classList.add("is-old");
    this.notice.hidden = false;
    const wantsKey = error.status === 401 || error.status === 403;
    this.notice.replaceChildren(error.message, wantsKey && " ", wantsKey ? h("a", { href: "/" }, "Enter one in the chat's settings.") : "");
  }
}

bindThemeButton(document.getElementById("theme"));
new SwarmPage().poll();
