// Elements and numbers as this page writes them.

export const $ = (id) => document.getElementById(id);

/** An element: properties, `data-`/`aria-` and other attributes by name, then children (strings and elements). */
export function h(tag, properties = {}, ...children) {
  const svg = ["svg", "line", "circle", "path"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (!svg && name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function table(caption, heads, rows, textColumns = []) {
  const kind = (i) => (textColumns.includes(i) ? "text" : "");
  return h("table", {}, h("caption", { className: "hidden" }, caption),
    h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", className: i ? kind(i) : "text" }, head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) =>
      i === 0 ? h("th", { scope: "row" }, cell) : h("td", { className: kind(i) }, cell))))));
}

/** Significant digits of a number that may well be round. */
export const plain = (value, n = 6) => (Number.isFinite(value) ? String(Number(value.toPrecision(n))) : "–");

/** Significant digits, without an exponent where people need none. */
export function digits(value, n = 5) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-5) return value.toExponential(n - 1);
  const text = value.toPrecision(n);
  return text.includes("e") ? String(Math.round(value)) : text;
}

export const fixed = (value, n) => (Number.isFinite(value) ? value.toFixed(n) : "–");
export const percent = (vol, n = 2) => (Number.isFinite(vol) ? `${(100 * vol).toFixed(n)} %` : "–");

/** An expiry as a desk says it. */
export function tenor(years) {
  const days = 365 * years;
  if (days < 45) return `${days < 10 ? fixed(days, 1).replace(/\.0$/, "") : Math.round(days)} days`;
  if (years < 0.98) return `${fixed(12 * years, 1).replace(/\.0$/, "")} months`;
  return `${fixed(years, 2).replace(/\.?0+$/, "")} ${Math.abs(years - 1) < 0.005 ? "year" : "years"}`;
}

export function save(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** For screen readers, which hear what changes here. */
export function announce(text) {
  $("status").textContent = text;
}
