// The model as a strip of layers, coloured by how many nodes serve each; experts show as cells within their layer.

import { h } from "../shared/dom.js";
import { plural } from "../shared/words.js";

const DEEPEST = 4; // hosts from which on the colour deepens no more
const MOST_CELLS = 16; // more experts than this are drawn as so many: finer cells could not be told apart

export function strip({ hosts_per_layer: hosts, hosts_per_expert: ofExperts, n_experts: nExperts }) {
  const cells = hosts.map((n, layerIdx) => {
    const cell = h("i.layer", { data: { hosts: String(Math.min(n, DEEPEST)), layer: String(layerIdx) } });
    cell.title = `layer ${layerIdx}: ${n ? plural(n, "node") : "nobody serves it"}${expertsText(ofExperts[layerIdx] ?? [])}`;
    if (nExperts) {
      cell.append(h("i.trunk"), h("i.experts", { style: { "--cells": String(Math.min(nExperts, MOST_CELLS)) } }));
    }
    return cell;
  });
  const holes = hosts.flatMap((n, i) => (n ? [] : [i]));
  const label = holes.length ? `Layers without a host: ${holes.join(", ")}` : "Every layer has a host";
  const classes = `strip${nExperts ? " has-experts" : ""}${hosts.length > 48 ? " is-dense" : ""}`;
  return h(`div.${classes.replaceAll(" ", ".")}`, { role: "img", aria: { label } }, cells);
}

// How many nodes answer for each expert of a layer, where any does.
function expertsText(hosts) {
  if (!hosts.some(Boolean)) return "";
  const missing = hosts.flatMap((n, i) => (n ? [] : [i]));
  if (missing.length) return `, no host for expert ${missing.join(", ")}`;
  return `, ${plural(Math.min(...hosts), "host")} of each of the ${hosts.length} experts at least`;
}

// Layer numbers below the strip, at round steps.
export function axis(nLayers) {
  const step = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 256].find((n) => nLayers / n <= 8) ?? 512;
  const marks = [];
  for (let i = 0; i < nLayers; i += step) {
    if (i === 0 || nLayers - i > step / 2) marks.push(mark(i, nLayers));
  }
  return h("div.axis", { aria: { hidden: "true" } }, marks, mark(nLayers, nLayers));
}

function mark(layerIdx, nLayers) {
  return h("span", { style: { left: `${(100 * layerIdx) / nLayers}%` } }, String(layerIdx));
}

export function legend({ n_experts: nExperts }) {
  const swatch = (n, text) => h("span", h("i.layer", { data: { hosts: String(n) } }), text);
  return [
    swatch(0, "nobody"), swatch(1, "one node"), swatch(2, "two"), swatch(3, "three"), swatch(4, "four or more"),
    ...(nExperts ? [h("span.note", "thin band: attention and router; cells: experts")] : []),
  ];
}

// A bar over layers [start, end) of the same axis.
export function bar([start, end], nLayers, className, ...content) {
  return h(`div.bar.${className}`, {
    style: { left: `${(100 * start) / nLayers}%`, width: `${(100 * (end - start)) / nLayers}%` },
  }, ...content);
}
