// Panels of quotes: read from text, and as rows to look at.
//
// A panel, as `calibrant calibrate` takes it, and the API's own JSON are read here. Whatever else people have goes to the
// service's `/v1/panel`, which knows how.

import { Problem, ask } from "./api.js";

const NEEDED = ["expiry_years", "strike", "forward"];

/** Cells of comma-separated text (RFC 4180). */
export function cells(text) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') { cell += '"'; i++; }
      else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === ",") { row.push(cell); cell = ""; }
    else if (c === "\n") { row.push(cell.replace(/\r$/, "")); rows.push(row); row = []; cell = ""; }
    else cell += c;
  }
  if (cell !== "" || row.length) { row.push(cell); rows.push(row); }
  return rows.filter((each) => each.some((value) => value.trim() !== ""));
}

/** The panels of a panel CSV; null if it is something else. */
function fromCsv(text) {
  const [head, ...rows] = cells(text);
  if (!head) return null;
  const at = Object.fromEntries(head.map((name, i) => [name.trim(), i]));
  const vols = ["mid_iv", "bid_iv", "ask_iv"].filter((name) => name in at);
  if (!NEEDED.every((name) => name in at) || !(vols.includes("mid_iv") || vols.length === 2)) return null;
  const numbers = [...NEEDED, ...vols];
  const panels = new Map();
  for (const row of rows) {
    const values = {};
    for (const name of numbers) {
      const cell = (row[at[name]] ?? "").trim();
      values[name] = cell === "" ? null : Number(cell);
      if (Number.isNaN(values[name]) || (cell === "" && NEEDED.includes(name))) return null;
    }
    const [id, asOf] = ["underlying", "as_of"].map((name) => (row[at[name]] ?? "").trim() || null);
    const label = [id, asOf].filter(Boolean).join(" ");
    if (!panels.has(label)) panels.set(label, { label, request: { id, as_of: asOf }, columns: [] });
    panels.get(label).columns.push(values);
  }
  return [...panels.values()].map(({ label, request, columns }) => {
    const column = (name) => (vols.includes(name) ? columns.map((row) => row[name]) : undefined);
    const quotes = { expiry: columns.map((row) => row.expiry_years), strike: columns.map((row) => row.strike),
      forward: columns.map((row) => row.forward), iv: column("mid_iv"), bid_iv: column("bid_iv"), ask_iv: column("ask_iv") };
    return { label, request: tidy({ ...request, quotes: tidy(quotes) }) };
  });
}

const tidy = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null && value !== undefined));
const isList = Array.isArray;

/** Whether units or columns may be others than they say: then the service looks at them, and asks. */
function doubtful({ request: { quotes } }) {
  const most = (column) => (column || []).reduce((found, value) => (value > found ? value : found), 0);
  const forwards = new Map();
  quotes.expiry.forEach((expiry, i) => forwards.set(expiry, (forwards.get(expiry) || new Set()).add(quotes.forward?.[i])));
  return Math.max(most(quotes.iv), most(quotes.ask_iv)) > 3 || most(quotes.expiry) > 12 || [...forwards.values()].some((of) => of.size > 3);
}

function isRequest(document) {
  const quotes = document?.quotes;
  return isList(quotes?.expiry) && (isList(quotes.log_moneyness) || (isList(quotes.strike) && quotes.forward !== undefined))
    && (isList(quotes.iv) || (isList(quotes.bid_iv) && isList(quotes.ask_iv)));
}

function fromJson(text) {
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    return null;
  }
  const requests = isList(document?.panels) ? document.panels : [document];
  if (!requests.length || !requests.every(isRequest)) return null;
  return requests.map((request, i) => ({
    label: [request.id, request.as_of].filter(Boolean).join(" ") || (requests.length > 1 ? `Panel ${i + 1}` : ""),
    request: tidy({ ...request, quotes: tidy(request.quotes) }),
  }));
}

/** The panels of a file. `intake` asks the service, where it reads chains. */
export async function read(file, intake) {
  const named = (panels) => panels.map((panel) => ({ ...panel, label: panel.label || file.name.replace(/\.\w+$/, "") }));
  if (file.size < 50e6 && !/\.(xlsx?|parquet|pq)$/i.test(file.name)) {
    const text = (await file.text()).replace(/^\ufeff/, "");
    const found = (text.trimStart().startsWith("{") ? fromJson(text) : fromCsv(text));
    if (found?.length && !(intake && found.some(doubtful))) return named(found);
  }
  if (intake) return named(await intake(file));
  throw new Problem({
    code: "not_a_panel",
    detail: `${file.name} is no panel: it needs the columns expiry_years, strike, forward, and mid_iv or bid_iv and ask_iv `
      + "with a number in each row, or the JSON that /v1/calibrate takes.",
  }, 0);
}

/** A row per quote: what is looked at and plotted. */
export function rows({ quotes }) {
  const n = quotes.expiry.length;
  const forward = (i) => (isList(quotes.forward) ? quotes.forward[i] : quotes.forward);
  return Array.from({ length: n }, (_, i) => {
    const relative = isList(quotes.log_moneyness);
    const log = relative ? quotes.log_moneyness[i] : Math.log(quotes.strike[i] / forward(i));
    const [bid, ask] = [quotes.bid_iv?.[i] ?? null, quotes.ask_iv?.[i] ?? null];
    const mid = quotes.iv?.[i] ?? (bid > 0 && ask !== null ? (bid + ask) / 2 : null);
    return { index: i, expiry: quotes.expiry[i], log, moneyness: Math.exp(log), strike: relative ? Math.exp(log) : quotes.strike[i],
      forward: relative ? 1 : forward(i), bid, ask, mid };
  });
}

/** Rows by expiry, ascending; expiries that differ by rounding alone are one. */
export function byExpiry(list) {
  const groups = [];
  for (const row of [...list].sort((a, b) => a.expiry - b.expiry || a.log - b.log)) {
    const last = groups[groups.length - 1];
    if (last && Math.abs(row.expiry - last.expiry) < 1e-9 * Math.max(1, row.expiry)) last.rows.push(row);
    else groups.push({ expiry: row.expiry, rows: [row] });
  }
  return groups;
}

/** What the fitted model says between the quotes: for each expiry, and between them, vols over the strikes there are. */
export async function surface(model, parameters, used) {
  const ranges = byExpiry(used.filter((row) => row.expiry > 0 && Number.isFinite(row.log))).map(({ expiry, rows: list }) => {
    const logs = list.map((row) => row.log);
    const [low, high] = [Math.min(...logs), Math.max(...logs)];
    const margin = Math.max(0.03 * (high - low), 0.002);
    return { expiry, low: low - margin, high: high + margin, level: list[0].forward, quoted: true };
  });
  if (!ranges.length) return [];
  const lines = [ranges[0]];
  const widest = (ranges[ranges.length - 1].expiry - ranges[0].expiry) / 14;
  for (const next of ranges.slice(1)) {
    const last = lines[lines.length - 1];
    const between = Math.min(8, Math.floor((next.expiry - last.expiry) / Math.max(widest, 1e-9)));
    for (let j = 1; j <= between; j++) {
      const share = j / (between + 1);
      const mixed = Object.fromEntries(["expiry", "low", "high", "level"].map((name) => [name, last[name] + share * (next[name] - last[name])]));
      lines.push({ ...mixed, quoted: false });
    }
    lines.push(next);
  }
  const n = lines.length > 30 ? 31 : 45;
  for (const line of lines) line.log = Array.from({ length: n }, (_, j) => line.low + (line.high - line.low) * (j / (n - 1)));
  const answer = await (await ask("POST", "/v1/price", { body: {
    model, parameters,
    expiry: lines.flatMap((line) => line.log.map(() => line.expiry)),
    log_moneyness: lines.flatMap((line) => line.log),
  } })).json();
  lines.forEach((line, i) => { line.vol = answer.implied_vol.slice(i * n, (i + 1) * n); });
  return lines;
}

/** Along axis `name`: of a row, or of a point of a line of `surface`. */
export const along = {
  row: (row, name) => (name === "log" ? row.log : name === "strike" ? row.strike : row.moneyness),
  line: (line, log, name) => (name === "log" ? log : name === "strike" ? line.level * Math.exp(log) : Math.exp(log)),
};
