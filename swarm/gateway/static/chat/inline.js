// Inline Markdown -> DOM nodes: emphasis, code, links. Anything that is not understood stays as it was written.
// HTML is text. Images are not loaded, since a page that shows strangers' words asks nobody else for anything.

import { h } from "../shared/dom.js";

const MAX_DEPTH = 12;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
const BARE_URL = /^https?:\/\/[^\s<>"`]+/;
const SAFE_URL = /^(https?:\/\/|mailto:)/i;

// Text -> a list of nodes and strings. Linear in the text for what is not closed: what was sought once in vain is not
// sought again.
export function inline(text, depth = 0) {
  return depth > MAX_DEPTH ? [text] : new InlineParser(text, depth).parse();
}

class InlineParser {
  constructor(text, depth) {
    this.text = text;
    this.depth = depth;
    this.out = [];
    this.plain = "";
    this.absent = new Set(); // closers that do not occur any more
  }

  parse() {
    let at = 0;
    while (at < this.text.length) {
      SPECIAL.lastIndex = at;
      const found = SPECIAL.exec(this.text);
      if (!found) break;
      this.plain += this.text.slice(at, found.index);
      at = this.take(found.index) ?? this.literal(found.index);
    }
    this.plain += this.text.slice(at);
    this.flush();
    return this.out;
  }

  literal(at) {
    // A whole run of one delimiter, so that a thousand stars are looked at once.
    let end = at + 1;
    if ("*_~`".includes(this.text[at])) while (this.text[end] === this.text[at]) end += 1;
    this.plain += this.text.slice(at, end);
    return end;
  }

  // What begins at `at`; returns where it ends, or null when nothing does.
  take(at) {
    switch (this.text[at]) {
      case "\\": return this.escape(at);
      case "`": return this.code(at);
      case "*": case "_": case "~": return this.emphasis(at);
      case "[": return this.link(at, at);
      case "!": return this.text[at + 1] === "[" ? this.link(at + 1, at) : null;
      case "<": return this.angleLink(at);
      case "\n": return this.lineBreak(at);
      default: return this.bareLink(at);
    }
  }

  escape(at) {
    const next = this.text[at + 1];
    if (next === "\n") return this.push(h("br"), at + 2);
    if (next === undefined || !PUNCTUATION.test(next)) return null;
    this.plain += next;
    return at + 2;
  }

  lineBreak(at) {
    if (!this.plain.endsWith("  ")) return null;
    this.plain = this.plain.trimEnd();
    return this.push(h("br"), at + 1);
  }

  code(at) {
    let start = at;
    while (this.text[start] === "`") start += 1;
    const ticks = this.text.slice(at, start);
    if (this.absent.has(ticks)) return null;
    let end = this.text.indexOf(ticks, start);
    while (end >= 0 && this.text[end + ticks.length] === "`") {
      while (this.text[end] === "`") end += 1;
      end = this.text.indexOf(ticks, end);
    }
    if (end < 0) {
      this.absent.add(ticks);
      return null;
    }
    let code = this.text.slice(start, end).replaceAll("\n", " ");
    if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
    return this.push(h("code", code), end + ticks.length);
  }

  emphasis(at) {
    const mark = this.text[at];
    let run = 1;
    while (this.text[at + run] === mark) run += 1;
    const widths = mark === "~" ? [2] : run >= 3 ? [3, 2, 1] : run === 2 ? [2] : [1];
    for (const width of widths) {
      if (width > run) continue;
      const end = this.closer(at + width, mark.repeat(width), at);
      if (end === null) continue;
      const inner = inline(this.text.slice(at + width, end), this.depth + 1);
      const node = mark === "~" ? h("del", inner)
        : width === 3 ? h("em", h("strong", inner)) : width === 2 ? h("strong", inner) : h("em", inner);
      return this.push(node, end + width);
    }
    return null;
  }

  // Where the delimiter closes what began before `from`, or null.
  closer(from, delimiter, opened) {
    const mark = delimiter[0];
    const before = this.text[opened - 1];
    if (this.absent.has(delimiter) || from >= this.text.length || /\s/.test(this.text[from])) return null;
    if (mark === "_" && before !== undefined && /[\p{L}\p{N}]/u.test(before)) return null;
    let at = from;
    while (at < this.text.length) {
      const char = this.text[at];
      if (char === "\\") at += 2;
      else if (char === "`") at = this.pastCode(at);
      else if (char === mark) {
        let run = 1;
        while (this.text[at + run] === mark) run += 1;
        if (run >= delimiter.length && this.closesAt(at, run, delimiter, from)) return at + run - delimiter.length;
        at += run;
      } else at += 1;
    }
    this.absent.add(delimiter);
    return null;
  }

  closesAt(at, run, delimiter, from) {
    if (at === from || /\s/.test(this.text[at - 1])) return false;
    if (delimiter.length === 1 && run === 2) return false; // a strong one inside
    const after = this.text[at + run];
    return !(delimiter[0] === "_" && after !== undefined && /[\p{L}\p{N}]/u.test(after));
  }

  pastCode(at) {
    let start = at;
    while (this.text[start] === "`") start += 1;
    const ticks = this.text.slice(at, start);
    if (this.absent.has(ticks)) return start;
    const end = this.text.indexOf(ticks, start);
    if (end < 0) this.absent.add(ticks);
    return end < 0 ? start : end + ticks.length;
  }

  // [text](url "title"), or ![alt](url), which becomes a link as well.
  link(bracket, at) {
    if (this.absent.has("](")) return null;
    if (this.text.indexOf("](", bracket) < 0) {
      this.absent.add("](");
      return null;
    }
    const match = /^\[((?:\\.|`[^`]*`|[^\[\]\\`]|\[[^\[\]]*\])*)\]\(\s*<?((?:[^\s()<>]|\([^\s()<>]*\))*)>?(?:\s+"[^"]*")?\s*\)/
      .exec(this.text.slice(bracket, bracket + 4000));
    if (!match) return null;
    const label = at === bracket ? inline(match[1], this.depth + 1) : [match[1] || match[2]];
    return this.push(anchor(match[2], label, match[0]), bracket + match[0].length);
  }

  angleLink(at) {
    const match = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i.exec(this.text.slice(at, at + 2048));
    return match ? this.push(anchor(match[1], [match[1]], match[0]), at + match[0].length) : null;
  }

  bareLink(at) {
    const match = BARE_URL.exec(this.text.slice(at, at + 2048));
    if (!match) return null;
    let url = match[0].replace(/[.,;:!?'*_~]+$/, "");
    if (url.endsWith(")") && !url.includes("(")) url = url.replace(/\)+[.,;:!?]*$/, "");
    return this.push(anchor(url, [url], url), at + url.length);
  }

  push(node, end) {
    this.flush();
    this.out.push(node);
    return end;
  }

  flush() {
    if (this.plain) this.out.push(this.plain);
    this.plain = "";
  }
}

// A link that leaves no trace of this page; text as written when the address is none that a link may have.
function anchor(url, label, written) {
  if (!SAFE_URL.test(url) || !URL.canParse(url)) return document.createTextNode(written);
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
}
