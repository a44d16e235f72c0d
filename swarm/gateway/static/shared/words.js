// Numbers for people.

export const shortId = (nodeId) => nodeId.slice(0, 8);

export const spanText = ([start, end]) => `${start}:${end}`;

export function plural(n, word) {
  return `${n.toLocaleString()} ${word}${n === 1 ? "" : "s"}`;
}

export function rateText(tokensPerS) {
  if (!(tokensPerS > 0)) return "–";
  return `${tokensPerS >= 100 ? Math.round(tokensPerS).toLocaleString() : tokensPerS.toFixed(1)} tokens/s`;
}

export function sizeText(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

export function countText(n) {
  if (n >= 1e9) return `${(n / 1e9).toFixed(1)} B`;
  return n >= 1e6 ? `${(n / 1e6).toFixed(n >= 1e7 ? 0 : 1)} M` : n.toLocaleString();
}

// Whole units: what changes ten times a second is not read.
export const agoText = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);

export function secondsText(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}
