// What an answer says, apart from the pictures.

import { $, announce, digits, fixed, h, percent, plain, table, tenor } from "./dom.js";

const STATUS = {
  converged: ["converged", ""], network_only: ["start alone, not refined", "warn"], budget_exhausted: ["time was up", "warn"],
  not_converged: ["not converged", "bad"],
};
const GREEK = { kappa: "κ", theta: "θ", xi: "ξ", rho: "ρ", v0: "v₀", lam: "λ", mu_j: "μⱼ", sigma_j: "σⱼ" };
const MISSING = "missing quote";
const STAGES = { decode: 5, queue: 4, network: 1, refine: 3, diagnostics: 2, encode: 5 };

export function symbol(name) {
  const [, stem, factor] = name.match(/^(v0|[a-z_]+?)(\d?)$/) || [null, name, ""];
  return (GREEK[stem] || stem) + (factor ? (stem === "v0" ? `,${factor}` : "₀₁₂"[Number(factor)]) : "");
}

export const size = (us) => (us >= 1e6 ? `${fixed(us / 1e6, 2)} s` : us >= 1000 ? `${fixed(us / 1000, us >= 10000 ? 1 : 2)} ms` : `${Math.round(us)} µs`);

function figure(term, value, unit, kept) {
  return h("div", {}, h("dt", {}, term), h("dd", {}, value, unit ? h("small", {}, ` ${unit}`) : null,
    kept === undefined ? null : h("small", { className: "versus" }, `kept: ${kept}`)));
}

export function showSummary(fit, kept) {
  const { answer } = fit;
  $("summary-title").textContent = [fit.panel.label, answer.model].filter(Boolean).join(" · ");
  const [status, kind] = STATUS[answer.status] || [answer.status, "warn"];
  const poor = answer.warnings.some((each) => each.code === "poor_fit");
  $("badge").textContent = poor ? `${status}, a poor fit` : status;
  $("badge").className = `badge ${kind || (poor ? "warn" : "")}`;
  const old = kept?.answer;
  const versus = (of) => (old ? of(old) : undefined);
  const total = fit.panel.request.quotes.expiry.length;
  const violations = (of) => String(of.arbitrage.quotes.n_violations + of.arbitrage.surface.n_violations);
  const surface = answer.arbitrage.surface.free ? "surface free" : answer.arbitrage.surface.n_violations ? "surface not free" : "surface not verified";
  $("figures").replaceChildren(
    figure("Error, root mean square", fixed(answer.fit.rmse_bp, 1), "bp of vol", versus((of) => fixed(of.fit.rmse_bp, 1))),
    figure("Largest", fixed(answer.fit.max_abs_bp, 1), "bp", versus((of) => fixed(of.fit.max_abs_bp, 1))),
    figure("Quotes used", String(answer.fit.n_quotes), `of ${total}`, versus((of) => of.fit.n_quotes)),
    figure("Arbitrage violations", violations(answer), surface, versus(violations)),
    figure("Feller ratio", digits(answer.feller_ratio, 3), "", versus((of) => digits(of.feller_ratio, 3))),
    figure("Compute", size(compute(fit)), `${answer.iterations} iterations`, versus(() => size(compute(kept)))),
  );
  const told = [answer.message, answer.out_of_domain ? "The answer lies outside what the network was trained on." : null].filter(Boolean);
  $("message").hidden = !told.length;
  $("message").textContent = told.join(" ");
  const warnings = [...(fit.panel.warnings || []), ...answer.warnings];
  $("warnings").hidden = !warnings.length;
  $("warnings").replaceChildren(...warnings.map((each) => h("li", {}, h("b", {}, each.code.replaceAll("_", " ")), ` – ${each.detail}`)));
  showStages(fit);
  announce(`${answer.model} ${status}: ${fixed(answer.fit.rmse_bp, 1)} basis points over ${answer.fit.n_quotes} quotes.`);
}

const compute = (fit) => Object.entries(timing(fit)).reduce((sum, [name, us]) => sum + (name === "queue" ? 0 : us), 0);

/** Microseconds by stage. */
function timing({ answer, stages }) {
  const { total, ...own } = answer.timing_us;
  return "encode" in stages ? { ...own, encode: 1000 * stages.encode } : own;
}

function showStages(fit) {
  const entries = Object.entries(timing(fit)).filter(([, us]) => us > 0);
  const total = entries.reduce((sum, [, us]) => sum + us, 0);
  const colour = (name) => `var(--stage-${STAGES[name] || 4})`;
  const bar = h("div", { className: "stage-bar", "aria-hidden": "true" });
  const key = h("ul", { className: "stage-key", "aria-label": "Time per stage" });
  for (const [name, us] of entries) {
    const part = h("div");
    part.style.flex = String(Math.max(us / total, 0.004));
    part.style.background = colour(name);
    bar.append(part);
    const swatch = h("i");
    swatch.style.background = colour(name);
    key.append(h("li", {}, swatch, `${name} ${size(us)}`));
  }
  key.append(h("li", {}, `from click to answer ${size(1000 * fit.elapsed)}`));
  $("stages").replaceChildren(bar, key);
}

/** Estimates with one and two standard errors, those of two fits on one scale. */
function whisker(entries) {
  const known = entries.filter(({ value }) => Number.isFinite(value));
  const reach = known.flatMap(({ value, error }) => [value - 2.6 * (error || 0), value + 2.6 * (error || 0)]);
  let [low, high] = [Math.min(...reach), Math.max(...reach)];
  if (!(high > low)) [low, high] = [low - 1, high + 1];
  const at = (x) => 4 + (136 * (Math.min(Math.max(x, low), high) - low)) / (high - low);
  const svg = h("svg", { class: "whisker", viewBox: "0 0 144 24", "aria-hidden": "true" }, h("line", { x1: 2, x2: 142, y1: 21, y2: 21 }));
  known.forEach(({ value, error, kind }, i) => {
    const y = known.length > 1 ? 6 + 9 * i : 11;
    const group = [error ? h("line", { class: "bar2", x1: at(value - 2 * error), x2: at(value + 2 * error), y1: y, y2: y }) : null,
      error ? h("line", { class: "bar1", x1: at(value - error), x2: at(value + error), y1: y, y2: y }) : null,
      h("circle", { cx: at(value), cy: y, r: 3.2 })].filter(Boolean);
    group.forEach((part) => part.classList.add(`${kind}-colour`));
    svg.append(...group);
  });
  return svg;
}

export function showParameters(fit, kept) {
  const { answer, request } = fit;
  const held = request.fixed || {};
  const rows = Object.entries(answer.parameters).map(([name, value]) => {
    const error = answer.standard_errors[name];
    const before = kept?.answer.parameters[name];
    const tag = name in held ? "held" : answer.at_bounds.includes(name) ? "at bound" : null;
    const estimates = [{ value, error, kind: "fit" }];
    if (before !== undefined) estimates.push({ value: before, error: kept.answer.standard_errors[name], kind: "kept" });
    const row = [h("span", {}, `${symbol(name)} `, h("span", { className: "muted" }, name), tag ? h("span", { className: "tag" }, tag) : null),
      digits(value), name in held ? "held" : digits(error, 2)];
    if (!kept) row.push(error && value ? `${fixed(Math.abs(100 * error / value), 1)} %` : "–");
    else row.push(before === undefined ? "–" : h("span", { className: "kept-colour" }, digits(before)));
    return [...row, whisker(estimates)];
  });
  const heads = ["Parameter", "Estimate", "± error", kept ? "Kept fit" : "relative", "1 and 2 errors"];
  $("parameters").replaceChildren(table("Parameters with their standard errors", heads, rows),
    h("p", { className: "muted verdict" }, `Started from ${{ network: "the network", fallback: "the shape of the surface", given: "the values given" }[answer.start]}`
      + `${answer.model_version ? `, ${answer.model_version.replace(/@.*/, "")}` : ""}.`));
}

function verdict(name, of) {
  const free = of.free ? h("b", { className: "ok" }, "free of arbitrage") : of.n_violations
    ? h("b", { className: "not" }, `${of.n_violations} violation${of.n_violations > 1 ? "s" : ""}`) : h("b", { className: "not" }, "not verified");
  return h("p", { className: "verdict" }, `${name}: `, free, ".");
}

export function showArbitrage({ answer }) {
  const parts = [];
  for (const [name, of] of [["The quotes", answer.arbitrage.quotes], ["The fitted surface", answer.arbitrage.surface]]) {
    parts.push(verdict(name, of));
    if (!of.violations.length) continue;
    const rows = of.violations.map((each) => [each.kind, tenor(each.expiry), plain(each.strike), `${fixed(1e4 * each.size, 2)}`]);
    parts.push(h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": `Violations: ${name.toLowerCase()}` },
      table(`Violations: ${name.toLowerCase()}`, ["Kind", "Expiry", "Strike", "Size, bp of the forward"], rows)));
    if (of.n_violations > of.violations.length) parts.push(h("p", { className: "muted verdict" }, `The ${of.violations.length} largest of ${of.n_violations}.`));
  }
  $("arbitrage").replaceChildren(...parts);
}

export function showExcluded(rows, panel) {
  const missing = rows.filter((row) => row.reason === MISSING).length;
  const out = rows.filter((row) => row.reason && row.reason !== MISSING);
  const before = panel.excluded || [];
  const parts = [];
  if (!out.length && !before.length) parts.push(h("p", { className: "verdict" }, "Every quote was used."));
  if (missing) parts.push(h("p", { className: "verdict muted" }, `${missing} ${missing > 1 ? "quotes are" : "quote is"} missing in the panel.`));
  if (out.length) {
    const counts = {};
    for (const { reason } of out) counts[reason] = (counts[reason] || 0) + 1;
    parts.push(h("p", { className: "verdict" }, Object.entries(counts).map(([reason, n]) => `${n} × ${reason}`).join("; ")));
    const list = out.slice(0, 200).map((row) => [String(row.index), tenor(row.expiry), plain(row.strike), percent(row.mid), row.reason]);
    parts.push(h("div", { className: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Quotes left out" },
      table("Quotes left out", ["Quote", "Expiry", "Strike", "Vol", "Reason"], list, [4])));
  }
  if (before.length) {
    parts.push(h("h3", {}, "When the panel was made"));
    parts.push(...before.map(({ reason, count }) => h("p", { className: "verdict muted" }, `${count} × ${reason}`)));
  }
  $("excluded").replaceChildren(...parts);
}

export function showQuotes(rows) {
  const most = 1000;
  const list = rows.slice(0, most).map((row) => [String(row.index), digits(row.expiry, 4), plain(row.strike), percent(row.bid), percent(row.ask), percent(row.mid),
    percent(row.model), Number.isFinite(row.model) && Number.isFinite(row.mid) ? fixed(1e4 * (row.model - row.mid), 1) : "–", row.reason || row.violation || ""]);
  $("quotes").replaceChildren(table("Every quote, and the model's vol", ["Quote", "Years", "Strike", "Bid", "Ask", "Mid", "Model", "Residual, bp", "Note"], list, [8]));
  if (rows.length > most) $("quotes").append(h("p", { className: "muted" }, `The first ${most} of ${rows.length}; the CSV has all.`));
}

export function quotesCsv(rows) {
  const head = "expiry_years,strike,forward,bid_iv,ask_iv,mid_iv,model_iv,note";
  const cell = (value) => (value === null || value === undefined || Number.isNaN(value) ? "" : String(value));
  const note = (row) => (row.reason || row.violation ? `"${(row.reason || row.violation).replaceAll('"', '""')}"` : "");
  const lines = rows.map((row) => [row.expiry, row.strike, row.forward, row.bid, row.ask, row.mid, row.model].map(cell).join(",") + `,${note(row)}`);
  return `${[head, ...lines].join("\n")}\n`;
}

export function showProblem(problem, rows) {
  const place = $("problem");
  place.hidden = !problem;
  if (!problem) return;
  const where = ({ pointer, detail }) => {
    const at = pointer?.match(/^\/quotes\/\w+\/(\d+)$/);
    const row = at ? rows?.[Number(at[1])] : undefined;
    return h("li", {}, detail, row ? h("span", { className: "muted" }, ` (quote ${row.index}: ${tenor(row.expiry)}, strike ${plain(row.strike)})`) : null,
      pointer ? [" ", h("code", {}, pointer)] : null);
  };
  // One that says what the sentence above says is no list.
  const listed = problem.errors?.length > 1 || problem.errors?.[0]?.pointer?.startsWith("/quotes/");
  place.replaceChildren(h("h2", {}, problem.status ? "This was refused" : "This did not work"), h("p", {}, problem.message),
    listed ? h("ul", {}, problem.errors.map(where)) : null, problem.code ? h("p", { className: "muted" }, h("code", {}, problem.code)) : null);
  place.scrollIntoView({ block: "nearest" });
}
