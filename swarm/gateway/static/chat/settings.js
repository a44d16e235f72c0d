// The settings of a conversation, and the key to the gateway: a sheet whose changes hold at once.

import { apiKey, setApiKey } from "../shared/gateway.js";
import { DEFAULTS } from "./conversation.js";

// field id -> [setting, text of a value, value of a text]. An empty field leaves it to the gateway.
const number = (text) => (text.trim() === "" || !Number.isFinite(Number(text)) ? null : Number(text));
const whole = (text) => (number(text) === null ? null : Math.trunc(number(text)));
const shown = (value) => (value === null ? "" : String(value));
const FIELDS = {
  "set-system": ["system", (value) => value, (text) => text],
  "set-temperature": ["temperature", shown, number],
  "set-top-p": ["topP", shown, number],
  "set-max-tokens": ["maxTokens", shown, whole],
  "set-seed": ["seed", shown, whole],
  "set-stop": ["stop", (value) => value.join("\n"), (text) => text.split("\n").filter(Boolean).slice(0, 16)],
};

export class SettingsSheet {
  // onChange(settings): when a setting changed; onKey(): when the key did.
  constructor(dialog, onChange, onKey) {
    this.dialog = dialog;
    this.onChange = onChange;
    this.onKey = onKey;
    this.settings = { ...DEFAULTS };
    this.key = dialog.querySelector("#set-key");
    for (const [id, [name, , valueOf]] of Object.entries(FIELDS)) {
      const field = dialog.querySelector(`#${id}`);
      field.addEventListener("input", () => {
        const isValid = field.checkValidity();
        field.setAttribute("aria-invalid", String(!isValid));
        if (!isValid) return;
        this.settings = { ...this.settings, [name]: valueOf(field.value) };
        this.onChange(this.settings);
      });
    }
    this.key.addEventListener("change", () => {
      setApiKey(this.key.value.trim());
      this.onKey();
    });
    dialog.querySelector("#settings-reset").addEventListener("click", () => {
      this.show({ ...DEFAULTS });
      this.onChange(this.settings);
    });
    dialog.querySelector("#settings-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside the sheet
    });
  }

  show(settings) {
    this.settings = { ...DEFAULTS, ...settings };
    for (const [id, [name, textOf]] of Object.entries(FIELDS)) {
      const field = this.dialog.querySelector(`#${id}`);
      field.value = textOf(this.settings[name]);
      field.removeAttribute("aria-invalid");
    }
    this.key.value = apiKey();
  }

  // asksForKey: the gateway refused for want of one.
  open(settings, asksForKey = false) {
    this.show(settings);
    this.dialog.querySelector("#key-wanted").hidden = !asksForKey;
    if (!this.dialog.open) this.dialog.showModal();
    if (asksForKey) this.key.focus();
  }
}
