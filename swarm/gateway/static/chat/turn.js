// One turn of a conversation on the page.

import { copyButton, h, iconButton } from "../shared/dom.js";
import { plural, rateText, secondsText, shortId, spanText } from "../shared/words.js";
import { MarkdownView } from "./markdown.js";

const ENDINGS = {
  length: "Cut off at the most tokens that an answer may have. Settings can raise it.",
  stopped: "Stopped.",
  model_length: "Cut off: the conversation has filled what the model can see at a time.",
  cut: "Cut off: the page was closed or reloaded while it was being written.",
};

// actions: {edit(turn, text) -> was it taken?, regenerate(turn), choose(turn), redraw()}.
export class TurnView {
  constructor(turn, actions) {
    this.turn = turn;
    this.actions = actions;
    this.body = h(`div.body.${turn.role === "user" ? "said" : "prose"}`);
    this.foot = h("footer");
    const label = turn.role === "user" ? "You" : "Answer";
    this.element = h(`article.turn.${turn.role}`, { aria: { label }, data: { turn: turn.id } }, this.body, this.foot);
    this.markdown = turn.role === "assistant" ? new MarkdownView(this.body) : null;
    this.isEditing = false;
  }

  // others: the turns that stand in the same place, this one included.
  update(others, isLast) {
    if (this.isEditing) return;
    const { turn } = this;
    const isWriting = turn.role === "assistant" && turn.reason === null;
    this.element.classList.toggle("writing", isWriting);
    this.element.classList.toggle("last", isLast);
    this.element.setAttribute("aria-busy", String(isWriting));
    this.write();
    this.foot.replaceChildren(...(isWriting ? this.whileWriting() : this.whenDone(others)).filter(Boolean));
  }

  // Only what grows while an answer is written.
  write() {
    if (this.markdown) this.markdown.show(this.turn.text);
    else this.body.textContent = this.turn.text;
  }

  writeMore() {
    this.write();
    this.foot.replaceChildren(...this.whileWriting());
  }

  whileWriting() {
    const { stats, text } = this.turn;
    if (!text) return [h("span.thinking", { aria: { label: "Waiting for the first token" } }, h("i"), h("i"), h("i"))];
    return [h("span.rate", stats?.tokensPerS ? rateText(stats.tokensPerS) : "")];
  }

  whenDone(others) {
    const { turn, actions } = this;
    const isUser = turn.role === "user";
    return [
      turn.error && h("p.failure", { role: "alert" }, turn.error),
      !turn.error && ENDINGS[turn.reason] && h("p.ending", ENDINGS[turn.reason]),
      h("div.tools",
        others.length > 1 && this.switcher(others),
        turn.text && copyButton(() => turn.text, isUser ? "Copy the message" : "Copy the answer"),
        isUser
          ? iconButton("edit", "Edit and send again", () => this.edit(), "bare.changes")
          : iconButton("again", turn.error ? "Try again" : "Regenerate", () => actions.regenerate(turn), "bare.changes"),
        !isUser && turn.stats && routeDetails(turn.stats)),
    ];
  }

  switcher(others) {
    const at = others.indexOf(this.turn);
    const go = (step) => this.actions.choose(others[at + step]);
    const previous = iconButton("previous", "The version before", () => go(-1));
    const next = iconButton("next", "The version after", () => go(1));
    previous.disabled = at === 0;
    next.disabled = at === others.length - 1;
    return h("span.versions.changes", previous, h("span", `${at + 1} / ${others.length}`), next);
  }

  edit() {
    this.isEditing = true;
    const field = h("textarea", { value: this.turn.text, rows: 3, aria: { label: "Edit the message" } });
    const end = () => {
      this.isEditing = false;
      this.element.classList.remove("editing");
      this.actions.redraw();
    };
    const send = () => {
      const text = field.value.trim();
      if (!text) return;
      this.isEditing = false;
      if (this.actions.edit(this.turn, text)) this.element.classList.remove("editing");
      else this.isEditing = true; // not now: another answer is being written
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        end();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    this.element.classList.add("editing");
    this.body.replaceChildren(field);
    this.foot.replaceChildren(h("div.choices",
      h("button", { type: "button", onclick: end }, "Cancel"),
      h("button.main", { type: "button", onclick: send }, "Send")));
    field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight / 2)}px`;
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

// How fast, how long, and by which nodes: a quiet line that opens.
function routeDetails({ tokensPerS, nTokens, firstS, hops, nReplays }) {
  const summary = [tokensPerS > 0 && rateText(tokensPerS), plural(nTokens, "token"), hops && plural(hops.length, "node")];
  return h("details.route", { ontoggle: ({ target }) => target.open && target.scrollIntoView({ block: "nearest" }) },
    h("summary", summary.filter(Boolean).join(" · ")),
    h("div.taken",
      h("p", `First token after ${secondsText(firstS)}.`,
        nReplays > 0 && ` ${plural(nReplays, "route")} lost on the way and replaced.`),
      hops && h("ol.hops", { aria: { label: "The route taken" } }, hops.map(hopItem)),
      hops && h("a", { href: "/swarm" }, "Look at the swarm")));
}

function hopItem({ node_id: nodeId, span }) {
  return h("li", { title: `node ${nodeId}, layers ${spanText(span)}`, style: { "flex-grow": String(span[1] - span[0]) } },
    h("b", shortId(nodeId)), h("span", spanText(span)));
}

const STARTERS = [
  "What is a magnet link?",
  "Tell me a story about a fox.",
  "Write a Python function that adds two numbers.",
];

// What is shown where a conversation has no turns yet. say(text): begins it.
export function emptyState(model, canChat, say) {
  return h("section.empty",
    h("img", { src: "/static/shared/icon.svg", alt: "" }),
    h("h2", "What shall we talk about?"),
    h("p", !model ? "The gateway is looking for its models."
      : canChat ? ["Answers come from ", h("b", model), ", run by the machines of its swarm together."]
      : [h("b", model), " has no chat template: it completes text, through the API at /v1/completions."]),
    canChat && h("div.starters", STARTERS.map((text) => h("button", { type: "button", onclick: () => say(text) }, text))),
    h("p.keys", h("kbd", "Enter"), " sends, ", h("kbd", "Shift"), " ", h("kbd", "Enter"), " begins a line, ",
      h("kbd", "Esc"), " stops, ", h("kbd", "/"), " comes back here"));
}

