// A node's row and a running answer's row, under the strip whose layers they line up with.

import { h } from "../shared/dom.js";
import { agoText, plural, rateText, secondsText, shortId, sizeText, spanText } from "../shared/words.js";
import { bar } from "./strip.js";

const STATES = {
  serving: ["good", "serving"],
  joining: ["waiting", "joining"],
  draining: ["waiting", "leaving"],
  gone: ["bad", "gone"],
};

export function nodeRow(node) {
  const [kind, words] = STATES[node.state] ?? ["", node.state];
  const spans = [
    ...node.spans.map(spanText),
    ...node.trunks.map((span) => `trunk ${spanText(span)}`),
    ...node.experts.map((one) => `experts ${one}`),
  ].join(", ");
  const share = node.needed_bytes ? Math.min(1, node.fetched_bytes / node.needed_bytes) : 0;
  return h(`tr.node.is-${node.state}`,
    h("th", { scope: "row", title: `${node.node_id}\n${node.address}\n${node.profile}, version ${node.version}` },
      h(`span.dot.${kind}`), h("code", shortId(node.node_id)),
      h("span.state", node.state === "gone" ? `gone ${agoText(node.gone_s)} ago` : words)),
    h("td.lane",
      h("span.unseen", `layers ${spans || "none yet"}`),
      node.spans.map((span) => bar(span, node.n_layers, node.state, node.state === "joining"
        ? h("div.fetched", { style: { width: `${100 * share}%` } }) : null)),
      node.trunks.map((span) => bar(span, node.n_layers, `${node.state}.trunk-alone`)),
      node.experts.length > 0 && h("span.progress", { style: { left: "0%" } }, `experts ${node.experts.join(" · ")}`),
      node.state === "joining" && h("span.progress", { style: besideOf(node) }, progressText(node, share))),
    h("td.speed", { title: "Tokens per second through this node's layers alone" },
      node.state === "gone" ? "" : node.tokens_per_s ? rateText(node.tokens_per_s) : "–"),
    h("td.load", { title: "Answers of this gateway that run on it, and how many more sessions it takes" }, loadText(node)),
    h("td.reach", reachText(node)));
}

function progressText({ needed_bytes: needed, fetched_bytes: fetched }, share) {
  return needed ? `${Math.floor(100 * share)} % · ${sizeText(fetched)} of ${sizeText(needed)}` : "reading the release";
}

// Words over a bar begin where it begins, or end where it ends when it lies far to the right.
function besideOf({ spans, n_layers: nLayers }) {
  const [start, end] = [spans[0]?.[0] ?? 0, spans.at(-1)?.[1] ?? 0];
  return start / nLayers < 0.55 ? { left: `${(100 * start) / nLayers}%` } : { right: `${100 - (100 * end) / nLayers}%` };
}

function loadText(node) {
  if (node.state !== "serving" || node.spans.length + node.trunks.length === 0) return ""; // no session comes to it
  const free = node.free_sessions ? `room for ${node.free_sessions}` : "full";
  return node.n_routes ? `${node.n_routes} here · ${free}` : free;
}

function reachText(node) {
  if (node.state === "gone" || node.is_reachable === null) return "";
  if (!node.is_reachable) return h("span.silent", "no answer");
  return node.connect_ms < 1 ? "< 1 ms" : `${Math.round(node.connect_ms)} ms`;
}

export function routeRow(route) {
  return h("tr.running",
    h("th", { scope: "row", title: route.id }, h("span.pulse"), h("span.state", "an answer")),
    h("td.lane", route.hops.map((hop) => bar(hop.span, route.n_layers, "hop",
      h("code", { title: `${hop.node_id}, layers ${spanText(hop.span)}` }, shortId(hop.node_id)))),
    route.hops.length === 0 && h("span.progress", "looking for a route")),
    h("td.speed", rateText(route.tokens_per_s)),
    h("td.load", plural(route.n_tokens, "token")),
    h("td.reach", route.n_replays ? `${plural(route.n_replays, "route")} lost` : secondsText(route.running_s)));
}
