// The pictures, by Plotly.

import { $, h, percent, plain, tenor } from "./dom.js";
import { along, byExpiry } from "./panels.js";

const AXES = { moneyness: "strike / forward", log: "log(strike / forward)", strike: "strike" };
const drawn = new Set();

function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "muted", "line", "grid", "card", "fit", "kept", "market", "bad", "left-out"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const isDark = () => document.documentElement.dataset.theme === "dark";
const font = () => ({ family: getComputedStyle(document.body).fontFamily, size: 12, color: colours().muted });

function layout(more) {
  const c = colours();
  return { paper_bgcolor: c.card, plot_bgcolor: c.card, font: font(), margin: { l: 52, r: 12, t: 12, b: 44 }, showlegend: false,
    hoverlabel: { bgcolor: c.card, bordercolor: c.line, font: { ...font(), color: c.ink } }, hovermode: "closest", ...more };
}

function draw(id, traces, more, description) {
  const place = $(id);
  place.setAttribute("aria-label", description);
  if (!window.Plotly) {
    empty(id, "Pictures need the package plotly beside the service: pip install 'calibrant[console]'.");
    return undefined;
  }
  if (!drawn.has(id)) place.replaceChildren();
  drawn.add(id);
  place.removeAttribute("data-drawn");
  // For whoever waits for the picture: it is there once this says what of.
  return window.Plotly.react(place, traces, layout(more), { displayModeBar: false, responsive: true }).then(() => { place.dataset.drawn = description; });
}

export function empty(id, text) {
  const place = $(id);
  if (drawn.delete(id)) window.Plotly.purge(place);
  place.dataset.drawn = text;
  place.setAttribute("aria-label", text);
  place.style.height = "";
  place.replaceChildren(h("p", { className: "empty" }, text));
}

export function saveFigure(id, name) {
  if (drawn.has(id)) window.Plotly.downloadImage($(id), { format: "png", scale: 2, width: $(id).clientWidth, height: $(id).clientHeight, filename: name });
}

const told = (row) => `strike ${plain(row.strike)} (${(100 * row.moneyness).toFixed(1)} %)<br>${tenor(row.expiry)}`
  + `<br>market ${percent(row.mid)}${row.bid !== null && row.ask !== null ? ` (${percent(row.bid)} – ${percent(row.ask)})` : ""}`
  + (Number.isFinite(row.model) ? `<br>model ${percent(row.model)}, ${(1e4 * (row.model - row.mid)).toFixed(1)} bp` : "")
  + (row.reason ? `<br><b>left out</b>: ${row.reason}` : "") + (row.violation ? `<br><b>arbitrage</b>: ${row.violation}` : "");

/** The middle range of what there is to see: one absurd wing does not flatten the rest. */
function shown(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return undefined;
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const reach = 2.5 * (at(0.95) - at(0.05)) || Infinity;
  const [low, high] = [Math.max(at(0), at(0.05) - reach), Math.min(at(1), at(0.95) + reach)];
  const pad = 0.08 * (high - low) || 0.1 * high || 1;
  return [Math.max(0, low - pad), high + pad];
}

export const hasWebGL = (() => {
  let known;
  return () => (known ??= Boolean(document.createElement("canvas").getContext("webgl")));
})();

/** Between which of some ascending places there is a gap: where one of `absent` lies, or a step is wide beside both next to it. */
function gaps(places, absent) {
  const steps = places.slice(1).map((x, i) => x - places[i]);
  return steps.map((step, i) => {
    const near = Math.max(steps[i - 1] ?? 0, steps[i + 1] ?? 0);
    return (near > 0 && step > 2.5 * near) || absent.some((x) => x > places[i] && x < places[i + 1]);
  });
}

const used = (row) => Number.isFinite(row.mid) && !row.reason;

/** Market vols between the quotes of an expiry, and nothing where there are none: a gap stays a gap. */
function marketLines(rows) {
  return byExpiry(rows).map(({ expiry, rows: all }) => ({ expiry, list: all.filter(used), absent: all.filter((row) => !used(row)).map((row) => row.log) }))
    .filter(({ list }) => list.length).map(({ expiry, list, absent }) => {
    const isGap = gaps(list.map((row) => row.log), absent);
    const [low, high] = [list[0].log, list[list.length - 1].log];
    const n = 60;
    const log = Array.from({ length: n }, (_, j) => low + ((high - low) * j) / (n - 1));
    let i = 0;
    const vol = log.map((k) => {
      while (i < list.length - 2 && list[i + 1].log < k) i++;
      const [left, right] = [list[i], list[i + 1] ?? list[i]];
      const step = right.log - left.log;
      if (isGap[i]) return null;
      return step > 0 ? left.mid + ((right.mid - left.mid) * Math.min(1, Math.max(0, (k - left.log) / step))) : left.mid;
    });
    return { expiry, log, vol, level: list[0].forward };
  });
}

export function drawSurface(id, rows, fit, view, axis) {
  if (!hasWebGL()) return empty(id, "This browser shows no 3-D pictures (WebGL is off). The smiles below are the same surface.");
  const c = colours();
  const traces = [];
  const scale = isDark() ? [[0, "#22375c"], [0.5, "#4d80cf"], [1, "#a9c8ff"]] : [[0, "#c9daf2"], [0.5, "#6c98d8"], [1, "#1c4a93"]];
  const area = (lines, name, more) => lines.length > 1 && traces.push({
    type: "surface", name, showscale: false, colorscale: scale,
    x: lines.map((line) => line.log.map((k) => along.line(line, k, axis))),
    y: lines.map((line) => line.log.map(() => line.expiry)),
    z: lines.map((line) => line.vol.map((vol) => (vol === null ? null : 100 * vol))),
    lighting: { ambient: 0.8, diffuse: 0.35, specular: 0.04, roughness: 0.9 },
    contours: { x: { highlight: false }, y: { highlight: false }, z: { highlight: false } },
    hovertemplate: `${AXES[axis]} %{x:.4~g}<br>%{y:.4~g} years<br>${name} %{z:.2f} %<extra></extra>`, ...more,
  });
  const wall = { line: { color: c.fit, width: 3 } };
  if (view !== "market" && fit) {
    area(fit.lines, "model", { opacity: view === "both" ? 0.82 : 1 });
    if (fit.lines.length === 1) traces.push({ type: "scatter3d", mode: "lines", ...wall, hoverinfo: "skip",
      x: fit.lines[0].log.map((k) => along.line(fit.lines[0], k, axis)), y: fit.lines[0].log.map(() => fit.lines[0].expiry), z: fit.lines[0].vol.map((v) => 100 * v) });
  }
  if (view === "market") area(marketLines(rows), "market", { connectgaps: false });
  const points = (list, name, marker, bars) => list.length && traces.push({
    type: "scatter3d", mode: "markers", name, text: list.map(told), hovertemplate: "%{text}<extra></extra>",
    x: list.map((row) => along.row(row, axis)), y: list.map((row) => row.expiry), z: list.map((row) => 100 * row.mid),
    marker: { size: 2.6, line: { width: 0 }, ...marker },
    error_z: bars ? { type: "data", symmetric: false, array: list.map((row) => 100 * (row.ask - row.mid)), arrayminus: list.map((row) => 100 * (row.mid - row.bid)),
      color: c.muted, thickness: 1.5, width: 0 } : undefined,
  });
  const seen = rows.filter((row) => Number.isFinite(row.mid) && Number.isFinite(row.log) && row.expiry > 0);
  const good = seen.filter((row) => !row.reason);
  const range = shown([...good.map((row) => 100 * row.mid), ...(fit && view !== "market" ? fit.lines.flatMap((line) => line.vol).map((v) => 100 * v) : [])]);
  const inRange = (list) => list.filter((row) => 100 * row.mid <= range[1] * 1.15);
  if (view !== "fit" && range) {
    const spreads = good.length < 1500 && good.every((row) => row.bid !== null && row.ask !== null);
    points(inRange(good.filter((row) => !row.violation)), "market", { color: c.market }, spreads);
    points(inRange(good.filter((row) => row.violation)), "arbitrage", { color: c.bad, size: 4.2 });
    points(inRange(seen.filter((row) => row.reason)), "left out", { color: c["left-out"], symbol: "x", size: 2.6 });
  }
  const side = (title, more = {}) => ({ title: { text: title, font: { size: 12 } }, gridcolor: c.grid, zerolinecolor: c.grid, linecolor: c.line,
    color: c.muted, showbackground: false, showspikes: false, tickfont: { size: 11 }, ...more });
  return draw(id, traces, {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    // Kept while the same panel is looked at: a new fit does not turn the surface back.
    uirevision: axis,
    scene: {
      xaxis: side(AXES[axis], { tickformat: axis === "strike" ? "" : ".2~f" }), yaxis: side("expiry, years"), zaxis: side("vol, %", { range }),
      camera: { eye: { x: 1.5, y: -1.5, z: 0.7 }, center: { x: 0, y: 0, z: -0.1 } }, aspectmode: "manual", aspectratio: { x: 1.3, y: 1.2, z: 0.78 },
    },
  }, `Implied volatility over ${AXES[axis]} and expiry: ${good.length} quotes at ${byExpiry(good).length} expiries`
    + `${fit ? ", and the fitted surface" : "; there is no fit"}. The same numbers are in the table of all quotes.`);
}

export function drawSmiles(id, rows, fit, kept, axis) {
  const c = colours();
  const groups = byExpiry(rows.filter((row) => Number.isFinite(row.mid) && Number.isFinite(row.log) && row.expiry > 0));
  if (!groups.length) return empty(id, "There is no quote to show.");
  const width = $(id).clientWidth || 900;
  const lines = Math.ceil(groups.length / Math.max(1, Math.min(Math.floor(width / 236), 5)));
  const columns = Math.ceil(groups.length / lines);
  const height = Math.max(groups.length === 1 ? 380 : 250, 190 * lines + 40);
  const [gapX, gapY] = [46 / width, 46 / height];
  const [cellX, cellY] = [(1 - gapX * (columns - 1)) / columns, (1 - gapY * (lines - 1)) / lines];
  const traces = [], more = { height, margin: { l: 40, r: 8, t: 16, b: 40 }, annotations: [] };
  const ax = { gridcolor: c.grid, zeroline: false, linecolor: c.line, tickfont: { size: 10.5 }, nticks: 5 };
  groups.forEach(({ expiry, rows: list }, i) => {
    const n = i ? i + 1 : "";
    const [column, line] = [i % columns, Math.floor(i / columns)];
    const [left, top] = [column * (cellX + gapX), 1 - line * (cellY + gapY)];
    const good = list.filter((row) => !row.reason);
    const on = { xaxis: `x${n}`, yaxis: `y${n}` };
    const curve = (of, colour, dash) => {
      const found = of?.lines.find((each) => each.quoted && Math.abs(each.expiry - expiry) < 1e-9 * Math.max(1, expiry));
      if (found) traces.push({ ...on, type: "scatter", mode: "lines", hoverinfo: "skip", line: { color: colour, width: 2, dash },
        x: found.log.map((k) => along.line({ level: list[0].forward }, k, axis)), y: found.vol.map((vol) => (vol === null ? null : 100 * vol)) });
      return found;
    };
    const points = (some, marker, bars) => some.length && traces.push({ ...on, type: "scatter", mode: "markers",
      x: some.map((row) => along.row(row, axis)), y: some.map((row) => 100 * row.mid), text: some.map(told), hovertemplate: "%{text}<extra></extra>", marker,
      error_y: bars ? { type: "data", symmetric: false, color: c.muted, thickness: 1.1, width: 0,
        array: some.map((row) => (row.ask === null || row.bid === null ? 0 : 100 * Math.max(0, row.ask - row.mid))),
        arrayminus: some.map((row) => (row.ask === null || row.bid === null ? 0 : 100 * Math.max(0, row.mid - row.bid))) } : undefined });
    curve(kept, c.kept, "dash");
    const own = curve(fit, c.fit);
    points(list.filter((row) => row.reason), { color: c["left-out"], symbol: "x-thin-open", size: 6, line: { width: 1.2 } });
    points(good, { color: c.market, size: list.length > 60 ? 2.6 : 3.8 }, good.some((row) => row.bid !== null && row.ask !== null));
    points(good.filter((row) => row.violation), { color: c.bad, symbol: "circle-open", size: 10, line: { width: 1.8, color: c.bad } });
    const bars = good.flatMap((row) => [row.bid, row.ask].filter((vol) => vol !== null && vol < 1.6 * row.mid));
    more[`xaxis${n}`] = { ...ax, domain: [left, left + cellX], anchor: `y${n}`, showgrid: false, tickformat: axis === "strike" ? "" : "~g",
      title: i >= groups.length - columns ? { text: AXES[axis], font: { size: 11 }, standoff: 6 } : undefined };
    more[`yaxis${n}`] = { ...ax, domain: [Math.max(0, top - cellY), top], anchor: `x${n}`,
      range: shown([...good.map((row) => 100 * row.mid), ...bars.map((vol) => 100 * vol), ...(own ? own.vol.map((vol) => 100 * vol) : [])]) };
    more.annotations.push({ text: `<b>${tenor(expiry)}</b>`, x: left, y: top, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom",
      showarrow: false, font: { size: 11.5, color: c.ink } });
  });
  $(id).style.height = `${height}px`;
  return draw(id, traces, more, `Smiles of ${groups.length} expiries from ${tenor(groups[0].expiry)} to ${tenor(groups[groups.length - 1].expiry)}: `
    + `quotes with their spreads${fit ? ", and the fitted curve" : ""}${kept ? ", and that of the kept fit" : ""}.`);
}

/** A row of a map: a cell for each quote, from half-way to its neighbours; a wide gap stays one. */
function cells(rows, axis, absent) {
  const at = new Map();
  for (const row of rows) {
    const x = Number(along.row(row, axis).toPrecision(9));
    at.set(x, [...(at.get(x) || []), row]);
  }
  const places = [...at.keys()].sort((one, other) => one - other);
  const steps = places.slice(1).map((x, i) => x - places[i]).sort((one, other) => one - other);
  const step = steps[Math.floor(steps.length / 2)] || 0.02 * Math.abs(places[0]) || 0.01;
  const isGap = gaps(places, absent);
  const edges = [places[0] - step / 2], inside = [];
  places.forEach((x, i) => {
    inside.push(at.get(x));
    const next = places[i + 1];
    if (next === undefined || isGap[i]) {
      const half = next === undefined ? step / 2 : Math.min(step / 2, (next - x) / 3);
      edges.push(x + half);
      if (next !== undefined) { inside.push([]); edges.push(next - half); }
    } else edges.push((x + next) / 2);
  });
  return { edges, inside };
}

export function drawResiduals(id, rows, axis) {
  const c = colours();
  const fitted = rows.filter((row) => Number.isFinite(row.model) && used(row));
  if (!fitted.length) return empty(id, "There is no fit, and so no residual.");
  const groups = byExpiry(fitted);
  const residual = (row) => 1e4 * (row.model - row.mid);
  const mean = (list) => list.reduce((sum, row) => sum + residual(row), 0) / list.length;
  const sizes = fitted.map((row) => Math.abs(residual(row))).sort((one, other) => one - other);
  const limit = sizes[Math.floor(0.97 * (sizes.length - 1))] || 1e-9;
  const low = isDark() ? "#f0a35e" : "#b4540a", high = isDark() ? "#78a9ff" : "#2159b8";
  const height = Math.max(330, 27 * groups.length + 90);
  $(id).style.height = `${height}px`;
  const traces = groups.map((group, i) => {
    const absent = rows.filter((row) => !used(row) && Math.abs(row.expiry - group.expiry) < 1e-9 * Math.max(1, group.expiry)).map((row) => along.row(row, axis));
    const { edges, inside } = cells(group.rows, axis, absent);
    return { type: "heatmap", x: edges, y: [i - 0.5, i + 0.5], z: [inside.map((list) => (list.length ? mean(list) : null))], coloraxis: "coloraxis", hoverongaps: false,
      xgap: inside.length > 60 ? 0 : 1, ygap: 2, text: [inside.map((list) => list.map(told).join("<br>"))], hovertemplate: "%{text}<extra></extra>" };
  });
  return draw(id, traces, {
    height, margin: { l: 78, r: 0, t: 8, b: 44 },
    coloraxis: { cmin: -limit, cmax: limit, colorscale: [[0, low], [0.5, isDark() ? "#2b323c" : "#efefec"], [1, high]],
      colorbar: { thickness: 9, outlinewidth: 0, tickfont: { size: 10.5 }, ticksuffix: " bp", len: 0.9 } },
    xaxis: { title: { text: AXES[axis], font: { size: 11 } }, showgrid: false, zeroline: false, tickformat: axis === "strike" ? "" : "~g" },
    yaxis: { showgrid: false, zeroline: false, ticks: "", tickvals: groups.map((_, i) => i), ticktext: groups.map((group) => tenor(group.expiry)) },
  }, `Residuals of ${fitted.length} quotes by expiry and ${AXES[axis]}; the largest is ${sizes[sizes.length - 1].toFixed(1)} basis points.`);
}

/** Have what the 3-D pictures need ready (contexts, shaders), before there is anything to show. */
export function warmUp(id) {
  if (!window.Plotly || !hasWebGL() || drawn.has(id)) return;
  const rows = [0.9, 1, 1.1].flatMap((moneyness) => [0.5, 1].map((expiry) => ({ expiry, moneyness, log: Math.log(moneyness), strike: moneyness, forward: 1,
    mid: 0.2, bid: 0.19, ask: 0.21, violation: moneyness > 1 ? "none" : undefined, reason: moneyness < 1 ? "none" : undefined })));
  const lines = [0.5, 1].map((expiry) => ({ expiry, level: 1, log: [-0.1, 0, 0.1], vol: [0.2, 0.2, 0.2] }));
  drawSurface(id, rows, { lines }, "both", "moneyness");
}

/** A curve for each expiry, from light to dark. */
export function drawCurves(id, curves, titles) {
  const [pale, deep] = isDark() ? [[52, 78, 124], [150, 190, 255]] : [[176, 201, 237], [22, 62, 130]];
  const shade = (share) => `rgb(${pale.map((from, i) => Math.round(from + share * (deep[i] - from))).join(",")})`;
  return draw(id, curves.map(({ expiry, x, y }, i) => ({ type: "scatter", mode: "lines", x, y, name: tenor(expiry),
    line: { width: 1.8, color: shade(curves.length > 1 ? i / (curves.length - 1) : 1) }, hovertemplate: `${titles.x} %{x:.5~g}<br>${titles.y} %{y:.4f}<extra>${tenor(expiry)}</extra>` })),
  { height: 320, showlegend: true, legend: { font: { size: 11 } }, xaxis: { title: { text: titles.x, font: { size: 11 } }, zeroline: false, gridcolor: colours().grid },
    yaxis: { title: { text: titles.y, font: { size: 11 } }, zeroline: false, gridcolor: colours().grid } },
  `${titles.y} over ${titles.x} for ${curves.length} expiries.`);
}
