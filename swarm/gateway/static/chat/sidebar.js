// The list of conversations, and the drawer that it is on a phone.

import { h, iconButton, reconcile } from "../shared/dom.js";

const DAY_MS = 86_400_000;
const UNDO_MS = 8000;

export class Sidebar {
  // actions: {open(id), remove(id)}.
  constructor(root, actions) {
    this.root = root;
    this.list = root.querySelector("#conversations");
    this.actions = actions;
    this.narrow = matchMedia("(max-width: 760px)");
    this.narrow.addEventListener("change", () => this.toggle(false));
    document.querySelector("#backdrop").addEventListener("click", () => this.toggle(false));
    this.toggle(false);
  }

  show(summaries, currentId) {
    const items = [];
    let group = "";
    for (const { id, title, updatedMs } of summaries) {
      const name = ageGroup(updatedMs);
      if (name !== group) items.push({ key: `group-${name}`, group: name });
      group = name;
      items.push({ key: id, id, title: title || "New conversation", isCurrent: id === currentId });
    }
    reconcile(this.list, items, (item) => item.key, (item) => this.item(item));
  }

  item({ id, group, title, isCurrent }) {
    if (group) return h("li.group", group);
    const open = h("button.open", { type: "button", title, onclick: () => this.open(id) }, title);
    if (isCurrent) open.setAttribute("aria-current", "true");
    return h("li", open, iconButton("trash", `Delete “${title}”`, () => this.actions.remove(id), "bare.remove"));
  }

  open(id) {
    this.toggle(false);
    this.actions.open(id);
  }

  // On a wide page it is always there; on a narrow one it slides over the rest.
  toggle(isOpen = !this.root.classList.contains("is-open")) {
    this.root.classList.toggle("is-open", isOpen);
    document.querySelector("#backdrop").hidden = !isOpen;
    this.root.inert = this.narrow.matches && !isOpen;
    document.querySelector("#menu").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.root.querySelector("button")?.focus();
  }

  get isOpen() {
    return this.root.classList.contains("is-open");
  }

  offerUndo(title, undo) {
    const toast = document.querySelector("#toast");
    const hide = () => toast.replaceChildren();
    const timer = setTimeout(hide, UNDO_MS);
    toast.replaceChildren(h("span", `Deleted “${title}”.`), h("button", {
      type: "button",
      onclick: () => {
        clearTimeout(timer);
        hide();
        undo();
      },
    }, "Undo"));
  }
}

function ageGroup(ms) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (ms >= midnight) return "Today";
  if (ms >= midnight - DAY_MS) return "Yesterday";
  return ms >= midnight - 7 * DAY_MS ? "Last seven days" : "Earlier";
}
