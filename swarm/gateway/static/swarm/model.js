// One model's swarm: is it whole, its strip of layers, its nodes, the answers that run, and how to help.

import { copyButton, h, reconcile } from "../shared/dom.js";
import { countText, plural, spanText } from "../shared/words.js";
import { axis, legend, strip } from "./strip.js";
import { nodeRow, routeRow } from "./rows.js";

export class ModelView {
  constructor(name) {
    this.verdict = h("p.verdict");
    this.about = h("p.about");
    this.strip = h("td.lane");
    this.legend = h("p.legend");
    this.nodes = h("tbody.nodes");
    this.routes = h("tbody.routes");
    this.lend = h("section.lend");
    this.table = h("table",
      h("caption.unseen", `Nodes of ${name} and the layers that they host`),
      h("thead", h("tr.strip-row", h("th", { scope: "row" }, "Layers"), this.strip, h("td.speed"), h("td.load"), h("td.reach"))),
      h("thead.headings", h("tr", ["Node", "Hosts", "Speed", "Load", "Reach"].map((text) => h("th", { scope: "col" }, text)))),
      this.nodes,
      this.routes);
    this.element = h("section.model", { aria: { label: name } },
      h("header", h("h2", name), this.verdict, this.about), this.table, this.legend, this.lend);
  }

  show(model) {
    this.element.classList.toggle("is-opening", !model.hosts_per_layer);
    if (!model.hosts_per_layer) {
      this.say("waiting", `Being opened: ${model.problem}`);
      return;
    }
    const isBroken = model.missing.length > 0;
    const experts = model.missing_experts.length ? `: no host for experts ${model.missing_experts.join(" · ")}` : "";
    const layers = model.missing.map(spanText).join(", ") + experts;
    this.say(isBroken ? "bad" : "good", isBroken ? `Nobody serves layers ${layers}` : "Every layer is served");
    this.about.textContent = aboutText(model);
    const said = JSON.stringify([model.hosts_per_layer, model.hosts_per_expert]);
    if (said !== this.saidStrip) {
      this.saidStrip = said;
      this.strip.replaceChildren(strip(model), axis(model.n_layers));
      this.legend.replaceChildren(...legend(model));
    }
    const withLayers = (items) => items.map((item) => ({ ...item, n_layers: model.n_layers }));
    reconcile(this.nodes, withLayers(model.nodes), (node) => node.node_id, nodeRow);
    reconcile(this.routes, withLayers(model.routes), (route) => route.id, routeRow);
    this.showLend(model.join_command, isBroken);
  }

  say(kind, words) {
    if (this.verdict.textContent === words) return;
    this.verdict.replaceChildren(h(`span.dot.${kind}`), words);
  }

  showLend(command, isBroken) {
    if (this.lend.dataset.command === command) return;
    this.lend.dataset.command = command;
    this.lend.replaceChildren(
      h("h3", isBroken ? "Fill the hole" : "Lend a hand"),
      h("p", isBroken ? "A machine that runs this takes the missing layers:" : "A machine that runs this takes the layers that need it most:"),
      h("div.command", h("code", { tabIndex: 0 }, command), copyButton(() => command, "Copy the command")));
  }
}

function aboutText(model) {
  const nServing = model.nodes.filter((node) => node.state === "serving").length;
  const fewest = Math.min(...model.hosts_per_layer);
  return [
    plural(model.n_layers, "layer"),
    model.n_experts && `${model.n_experts} experts in each, ${model.n_experts_per_tok} at work per token`,
    `${countText(model.n_params)} parameters`,
    `${plural(nServing, "node")} serving`,
    fewest > 0 && `${plural(fewest, "host")} per layer at least`,
    model.routes.length && `${plural(model.routes.length, "answer")} running`,
  ].filter(Boolean).join(" · ");
}
