// Builds DOM nodes. Text stays text: nothing here, or on any page, parses a string as HTML.

const SVG = "http://www.w3.org/2000/svg";

// h("button.main", { onclick, ariaLabel: "Send" }, "Send", icon("send")) -> that element.
// Properties are set as properties; `data` and `aria` objects become data-… and aria-… attributes.
export function h(selector, ...rest) {
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const part of rest.flat(2)) {
    if (part === null || part === undefined || part === false) continue;
    if (typeof part === "object" && !(part instanceof Node)) setAll(element, part);
    else element.append(part);
  }
  return element;
}

function setAll(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") for (const [key, text] of Object.entries(value)) element.setAttribute(`aria-${key}`, text);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
}

const ICONS = {
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  copy: ["M9 9h10v11H9z", "M5 15V4h10"],
  down: ["M12 5v14", "M6 13l6 6 6-6"],
  edit: ["M4 20h4L19 9l-4-4L4 16z"],
  menu: ["M4 7h16", "M4 12h16", "M4 17h16"],
  moon: ["M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"],
  next: ["M9 5l7 7-7 7"],
  plus: ["M12 5v14", "M5 12h14"],
  previous: ["M15 5l-7 7 7 7"],
  again: ["M19 12a7 7 0 1 1-2.1-5", "M19 4v4h-4"],
  send: ["M12 19V6", "M6 11l6-6 6 6"],
  settings: ["M4 8h8", "M18 8h2", "M15 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6z", "M4 16h2", "M12 16h8",
    "M9 13a3 3 0 1 0 0 6 3 3 0 0 0 0-6z"],
  stop: ["M7 7h10v10H7z"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2v2", "M12 20v2", "M2 12h2", "M20 12h2", "M5 5l1.4 1.4",
    "M17.6 17.6L19 19", "M19 5l-1.4 1.4", "M6.4 17.6L5 19"],
  trash: ["M5 7h14", "M10 7V4h4v3", "M7 7l1 13h8l1-13"],
  auto: ["M12 4a8 8 0 1 0 0 16z", "M12 4a8 8 0 0 1 0 16"],
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  for (const d of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

// A button that shows only an icon; label is its name for those who cannot see it.
export function iconButton(name, label, onclick, className = "bare") {
  return h(`button.${className}`, { type: "button", title: label, aria: { label }, onclick }, icon(name));
}

// Makes parent's children one element per item, touching only those whose item changed: hover, focus and a selection
// survive an update. Elements are known by keyOf(item).
export function reconcile(parent, items, keyOf, make) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, position) => {
    const key = String(keyOf(item));
    const said = JSON.stringify(item);
    let element = before.get(key);
    before.delete(key);
    if (!element || element.reconciled !== said) {
      const made = make(item);
      made.dataset.key = key;
      made.reconciled = said;
      if (element) element.replaceWith(made);
      element = made;
    }
    if (parent.children[position] !== element) parent.insertBefore(element, parent.children[position] ?? null);
  });
  for (const element of before.values()) element.remove();
}

// Copies text, also where the page came over plain HTTP and the browser has no clipboard for it.
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return;
  } catch {
    const field = h("textarea", { value: text, readOnly: true, style: { position: "fixed", opacity: "0" } });
    const focused = document.activeElement;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    focused?.focus?.();
  }
}

// A button that copies what text() says, and says that it did.
export function copyButton(text, label = "Copy") {
  const button = iconButton("copy", label, async () => {
    await copyText(text());
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}
