// Where one writes: a field that grows, and one button that sends, or stops what is being written.

import { icon } from "../shared/dom.js";

// actions: {send(text) -> was it taken?, stop(), editLast()}. Returns {show({isRunning, canSend}), focus()}.
export function bindComposer(actions) {
  const field = document.getElementById("message");
  const button = document.getElementById("send");
  let state = { isRunning: false, canSend: false };

  function fit() {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight, innerHeight * 0.4)}px`;
  }

  function draw() {
    const label = state.isRunning ? "Stop" : "Send";
    button.replaceChildren(icon(state.isRunning ? "stop" : "send"));
    button.classList.toggle("stops", state.isRunning);
    button.title = label;
    button.setAttribute("aria-label", label);
    button.disabled = !state.isRunning && (!state.canSend || !field.value.trim());
  }

  function send() {
    const text = field.value.trim();
    if (!text || state.isRunning || !actions.send(text)) return;
    field.value = "";
    fit();
    draw();
  }

  field.addEventListener("input", () => {
    fit();
    draw();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && !field.value && !state.isRunning) {
      event.preventDefault();
      actions.editLast();
    }
  });
  button.addEventListener("click", () => (state.isRunning ? actions.stop() : send()));
  addEventListener("resize", fit);

  return {
    show(next) {
      state = next;
      draw();
    },
    focus() {
      field.focus();
    },
  };
}
