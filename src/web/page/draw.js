// Elements, small curves and plots. Text is always text, never markup, whatever a name contains.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element with attributes and children; a child is an element or text. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Replaces the text of an element only if it is another one, so that a screen reader is not told again. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Makes a list of elements be those of some items, each known by its key: what stays keeps its focus. */
export function keyed(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const name = key(item);
    let child = known.get(name);
    if (!child) { child = make(item); child.dataset.key = name; }
    known.delete(name);
    update(child, item);
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
  known.forEach((child) => child.remove());
}

const points = (values, width, height, most, whole) => {
  const step = width / Math.max(whole - 1, 1);
  const first = whole - values.length;
  const parts = [[]];
  values.forEach((value, place) => {
    if (value === null) { if (parts.at(-1).length) parts.push([]); return; }
    parts.at(-1).push([(first + place) * step, height - (most ? value / most : 0) * height]);
  });
  return parts.filter((part) => part.length);
};
const path = (part) => part.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** How many looks a curve has room for: at first fewer, so that it is not lost at the right edge. */
const stretch = (length, most) => Math.min(Math.max(length, 20), most);

/** Text with `code` in it. */
export function prose(words) {
  return words.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));
}

/** A curve without axes. */
export function spark(element, values, most_kept) {
  const [width, height] = [120, 24];
  const kept = stretch(values.length, most_kept);
  const shown = values.slice(-kept);
  const most = Math.max(...shown.filter((value) => value !== null), 0);
  const parts = points(shown, width, height - 2, most, kept);
  const lines = parts.map((part) => path(part)).join("");
  const areas = parts.map((part) => `${path(part)}L${part.at(-1)[0].toFixed(1)} ${height}L${part[0][0].toFixed(1)} ${height}Z`).join("");
  if (!element.firstChild) {
    element.setAttribute("viewBox", `0 0 ${width} ${height}`);
    element.setAttribute("preserveAspectRatio", "none");
    element.setAttribute("aria-hidden", "true");
    element.append(svg("path", { class: "area" }), svg("path", { class: "line" }));
  }
  element.firstChild.setAttribute("d", areas);
  element.lastChild.setAttribute("d", lines);
}

/** Returns a round number that is not below a value. */
function ceiling(value) {
  if (value <= 0) return 1;
  const base = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * base).find((candidate) => candidate >= value);
}

/** Curves with axes and a legend that has the current values in text. */
export function plot(element, series, { format, name, pause, most_kept }) {
  const kept = stretch(series[0].values.length, most_kept);
  const seconds = Math.round(kept * pause / 1000);
  const [width, height, left, bottom] = [460, 150, 46, 20];
  const values = series.flatMap((one) => one.values.slice(-kept)).filter((value) => value !== null);
  const most = ceiling(Math.max(...values, 0));
  const inner = [width - left - 4, height - bottom - 8];
  const grid = [0, 0.5, 1].flatMap((share) => {
    const y = 8 + inner[1] * (1 - share);
    return [
      svg("line", { class: "grid", x1: left, x2: width - 4, y1: y, y2: y }),
      svg("text", { class: "label", x: left - 6, y: y + 4, "text-anchor": "end" }, format(most * share)),
    ];
  });
  const ago = seconds >= 120 ? `${Math.round(seconds / 60)} min ago` : `${seconds} s ago`;
  const labels = [
    svg("text", { class: "label", x: left, y: height - 4 }, ago),
    svg("text", { class: "label", x: width - 4, y: height - 4, "text-anchor": "end" }, "now"),
  ];
  const lines = svg("g", { transform: `translate(${left} 8)` });
  series.forEach((one, place) => {
    const d = points(one.values.slice(-kept), inner[0], inner[1], most, kept).map(path).join("");
    lines.append(svg("path", { class: `line s${place}`, d }));
  });
  const shown = series.map((one) => `${one.name} ${format(one.values.at(-1) ?? null)}`).join(", ");
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}: ${shown || "none"}` }, ...grid, ...labels, lines);
  const legend = el("ul", { class: "legend", "aria-hidden": "true" }, series.map((one, place) =>
    el("li", {}, el("span", { class: `key k${place}` }), `${one.name} `, el("b", {}, format(one.values.at(-1) ?? null)))));
  element.replaceChildren(picture, legend);
}

/** A bar that shows a share. */
export function meter(name, share, figures, note, level) {
  const bar = svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 100, height: 8 }),
    svg("rect", { class: "fill", width: Math.min(100, 100 * share).toFixed(2), height: 8 }));
  return el("div", { class: `meter ${level}` }, el("span", {}, name), el("b", {}, figures), bar, note ? el("span", { class: "sub" }, note) : null);
}
