// Markdown -> DOM nodes, block by block: paragraphs, headings, lists, quotes, tables, code with a button to copy it.
// Made for text that is still being written: `MarkdownView.show` redraws only the blocks that changed.

import { copyButton, h } from "../shared/dom.js";
import { inline } from "./inline.js";

const MAX_DEPTH = 10;
// Each pattern reads a line once, whatever stands in it: no two parts of one can take the same characters.
const FENCE = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?!#)(?:[ \t](.*)|)$/;
const RULE = /^ {0,3}([-*_])\s*(?:\1\s*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +(.*)|)$/;
const TABLE_RULE = /^\|? *:?-+:? *(\| *:?-+:? *)*\|?$/; // of a trimmed line

export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.shown = []; // the source of each block that is in the element now
  }

  // Makes the element show text. Blocks whose source is as before keep their nodes, selection and all.
  show(text) {
    const blocks = split(linesOf(text));
    const sources = blocks.map((block) => block.lines.join("\n"));
    let same = 0;
    while (same < sources.length && sources[same] === this.shown[same]) same += 1;
    while (this.element.childNodes.length > same) this.element.lastChild.remove();
    for (const block of blocks.slice(same)) this.element.append(build(block, 0));
    this.shown = sources;
  }
}

export function markdown(text) {
  return split(linesOf(text)).map((block) => build(block, 0));
}

const linesOf = (text) => text.replace(/\r\n?/g, "\n").split("\n");

// Lines -> blocks {kind, lines}, in order and without the empty lines between them.
function split(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const kind = kindAt(lines, at);
    const end = endOf(kind, lines, at);
    blocks.push({ kind, lines: lines.slice(at, end) });
    at = end;
  }
  return blocks;
}

function kindAt(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && lines[at + 1]?.includes("-") && TABLE_RULE.test(lines[at + 1].trim())) return "table";
  return "paragraph";
}

function endOf(kind, lines, at) {
  if (kind === "heading" || kind === "rule") return at + 1;
  if (kind === "code") return endOfCode(lines, at);
  if (kind === "list") return endOfList(lines, at);
  let end = at + (kind === "table" ? 2 : 1);
  while (end < lines.length && lines[end].trim()) {
    if (kind === "table" && !lines[end].includes("|")) break;
    if (kind !== "table" && interrupts(lines, end, kind)) break;
    end += 1;
  }
  return end;
}

// Does the line begin a block of its own right after a paragraph's (or a quote's) line?
function interrupts(lines, at, after) {
  const kind = kindAt(lines, at);
  if (kind === "list") {
    const [, indent, mark, rest] = ITEM.exec(lines[at]);
    return indent.length < 4 && Boolean(rest) && (mark.length === 1 || /^1[.)]$/.test(mark));
  }
  return kind !== "paragraph" && kind !== after;
}

function endOfCode(lines, at) {
  const fence = FENCE.exec(lines[at])[1];
  for (let end = at + 1; end < lines.length; end += 1) {
    const line = lines[end].trim();
    if (line.length >= fence.length && line === fence[0].repeat(line.length)) return end + 1;
  }
  return lines.length; // still being written
}

function endOfList(lines, at) {
  const ordered = isOrdered(lines[at]);
  const indent = ITEM.exec(lines[at])[1].length;
  let end = at + 1;
  while (end < lines.length) {
    const line = lines[end];
    if (!line.trim()) {
      const next = lines.slice(end, end + 3).find((l) => l.trim());
      if (next === undefined || (indentOf(next) <= indent + 1 && !ITEM.test(next))) return end;
    } else if (indentOf(line) <= indent + 1) {
      const item = ITEM.exec(line);
      if (item ? isOrdered(line) !== ordered && item[1].length <= indent : !lines[end - 1].trim()) return end;
      if (!item && kindAt(lines, end) !== "paragraph") return end;
      if (item && RULE.test(line)) return end;
    }
    end += 1;
  }
  return end;
}

const indentOf = (line) => line.length - line.trimStart().length;
const isOrdered = (line) => /^\s*\d/.test(line);

function build(block, depth) {
  switch (block.kind) {
    case "code": return codeBlock(block.lines);
    case "heading": return heading(block.lines[0]);
    case "rule": return h("hr");
    case "quote": return h("blockquote", nested(block.lines.map((line) => line.replace(QUOTE, "")), depth));
    case "list": return list(block.lines, depth);
    case "table": return table(block.lines);
    default: return h("p", inline(block.lines.join("\n").trim())); // its lines and their indents are seen: see prose.css
  }
}

function nested(lines, depth) {
  if (depth >= MAX_DEPTH) return [h("p", lines.join("\n"))];
  return split(lines).map((block) => build(block, depth + 1));
}

function heading(line) {
  const [, marks, text] = HEADING.exec(line);
  return h(`h${Math.min(6, marks.length + 1)}`, inline(withoutClosing((text ?? "").trim()))); // h1 is the page's own
}

// "Title ##" -> "Title"
function withoutClosing(text) {
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  return end === 0 || /\s/.test(text[end - 1]) ? text.slice(0, end).trimEnd() : text;
}

function codeBlock(lines) {
  const [, fence, info] = FENCE.exec(lines[0]);
  const last = lines.at(-1).trim();
  const isClosed = lines.length > 1 && last.length >= fence.length && last === fence[0].repeat(last.length);
  const indent = indentOf(lines[0]);
  const body = lines.slice(1, isClosed ? -1 : undefined).map((line) => line.slice(Math.min(indent, indentOf(line))));
  const code = body.join("\n");
  const language = info.trim().split(/\s+/)[0].slice(0, 24);
  return h("figure.code",
    h("figcaption", h("span", language || "text"), copyButton(() => code, "Copy the code")),
    h("pre", { tabIndex: 0 }, h("code", code)));
}

function list(lines, depth) {
  const base = ITEM.exec(lines[0])[1].length;
  const ordered = isOrdered(lines[0]);
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= base + 1) {
      items.push({ indent: item[1].length + item[2].length + 1, lines: [item[3] ?? ""] });
    } else {
      const { indent, lines: own } = items.at(-1);
      own.push(line.slice(Math.min(indent, indentOf(line))));
    }
  }
  const isLoose = lines.some((line, i) => !line.trim() && i < lines.length - 1);
  const start = ordered ? Number.parseInt(lines[0], 10) : 1;
  const nodes = items.map((item) => listItem(item.lines, depth, isLoose));
  return ordered ? h("ol", start === 1 ? null : { start }, nodes) : h("ul", nodes);
}

function listItem(lines, depth, isLoose) {
  const task = /^\[([ xX])\] /.exec(lines[0]);
  if (task) lines = [lines[0].slice(4), ...lines.slice(1)];
  const nodes = nested(lines, depth);
  const content = isLoose ? nodes : nodes.flatMap((node) => (node.tagName === "P" ? [...node.childNodes] : [node]));
  const mark = task && h("input", { type: "checkbox", disabled: true, checked: task[1] !== " " });
  return h("li", mark, mark && " ", content);
}

function table(lines) {
  const aligns = cells(lines[1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : null);
  const row = (line, tag) => {
    const texts = cells(line).slice(0, aligns.length);
    return h("tr", texts.map((text, i) => h(tag, aligns[i] && { className: aligns[i] }, inline(text))));
  };
  return h("div.table", { tabIndex: 0 },
    h("table", h("thead", row(lines[0], "th")), h("tbody", lines.slice(2).map((line) => row(line, "td")))));
}

// The cells of a row; a bar that is escaped or in code is text.
function cells(line) {
  const found = [];
  let cell = "";
  let inCode = false;
  for (const char of line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "")) {
    if (char === "`") inCode = !inCode;
    if (char === "|" && !inCode && !cell.endsWith("\\")) {
      found.push(cell.trim());
      cell = "";
    } else {
      cell = char === "|" && cell.endsWith("\\") ? cell.slice(0, -1) + char : cell + char;
    }
  }
  found.push(cell.trim());
  return found;
}
