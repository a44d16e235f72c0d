// The theme: the system's, or the one that was chosen here.

import { icon } from "./dom.js";

const KEY = "swarm.theme";
const THEMES = ["auto", "light", "dark"];
const ICON = { auto: "auto", light: "sun", dark: "moon" };

export function chosenTheme() {
  const theme = localStorage.getItem(KEY);
  return THEMES.includes(theme) ? theme : "auto";
}

export function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

// Makes button go round the themes.
export function bindThemeButton(button) {
  const show = () => {
    const theme = chosenTheme();
    applyTheme(theme);
    button.replaceChildren(icon(ICON[theme]));
    button.title = `Theme: ${theme}`;
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    localStorage.setItem(KEY, THEMES[(THEMES.indexOf(chosenTheme()) + 1) % THEMES.length]);
    show();
  });
  show();
}
