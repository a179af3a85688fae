// Leverage functions and one-touch prices: jobs of the service, where it has them.

import { ask, json } from "./api.js";
import { announce, digits, fixed, h, percent, plain, table, tenor } from "./dom.js";
import { drawCurves } from "./figures.js";

const KERNELS = ["gaussian", "quartic", "epanechnikov", "sigmoid"];
const ESTIMATORS = ["binned_local_linear", "bins", ...KERNELS.map((name) => `nw_${name}`), ...KERNELS.map((name) => `local_linear_${name}`), "rbf", "purbf"];
const page = { place: null, fit: null, leverage: null, prices: [], failed: null, oneTouch: false };

/** Whether this service has them decides whether they are shown. */
export function begin(place, paths, failed) {
  page.place = paths.has("/v1/leverage") ? place : null;
  page.failed = failed;
  page.oneTouch = paths.has("/v1/one-touch");
}

const field = (id, label, element) => h("div", {}, h("label", { htmlFor: id }, label), Object.assign(element, { id }));
const number = (value, more = {}) => h("input", { type: "number", step: "any", required: true, value, ...more });
const choice = (values) => h("select", {}, values.map((value) => (Array.isArray(value) ? h("option", { value: value[0] }, value[1]) : h("option", { value }, value.replaceAll("_", " ")))));
const value = (id) => document.getElementById(id).value;

/** For a fit: a form of its own. What was computed for another is gone. */
export function offer(fit) {
  const { place } = page;
  if (!place) return;
  place.hidden = !fit;
  if (!fit || fit === page.fit) return;
  Object.assign(page, { fit, leverage: null, prices: [] });
  const used = usedRows(fit);
  const near = used.reduce((best, row) => (row.expiry < best.expiry ? row : best));
  const longest = Math.max(...used.map((row) => row.expiry));
  place.replaceChildren(
    h("h2", { id: "barriers-title" }, "Leverage and one-touch"),
    h("p", { className: "muted verdict" }, "Stochastic local volatility: a leverage function that makes a Heston model reprice the surface, and barriers priced with it."),
    h("form", { id: "leverage-form", onsubmit: submit(leverage) }, h("div", { className: "fields" },
      field("lv-surface", "Surface", choice([["quotes", "the quotes"], ...(fit.answer.model === "heston" ? [["heston", "the fitted Heston"]] : [])])),
      field("lv-spot", "Spot", number(plain(near.forward))), field("lv-domestic", "Domestic rate", number(0)), field("lv-foreign", "Foreign rate or yield", number(0)),
      field("lv-mixing", "Mixing", number(0.66, { min: 0, max: 1 })), field("lv-maturity", "Maturity, years", number(plain(Math.min(longest, 1), 4))),
      field("lv-particles", "Particles", number(2048, { min: 2, step: 1 })), field("lv-step", "Step, days", number(5)),
      field("lv-estimator", "Estimator", choice(ESTIMATORS)), field("lv-seed", "Seed", number(1, { step: 1 }))),
    h("div", { className: "buttons" }, h("button", { type: "submit" }, "Compute the leverage"))),
    h("div", { id: "leverage-progress" }), h("div", { id: "leverage-answer" }));
}

const usedRows = (fit) => fit.rows.filter((row) => !row.reason && Number.isFinite(row.mid) && row.expiry > 0);

const submit = (act) => async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button[type=submit]");
  button.disabled = true;
  try {
    await act();
  } catch (error) {
    if (error.name !== "AbortError") await page.failed(error, () => {});
  } finally {
    button.disabled = false;
  }
};

function surface() {
  const market = { spot: Number(value("lv-spot")), domestic_rate: Number(value("lv-domestic")), foreign_rate: Number(value("lv-foreign")) };
  if (value("lv-surface") === "heston") return { kind: "heston", ...market, parameters: page.fit.answer.parameters };
  const rows = usedRows(page.fit);
  const quotes = { expiry: rows.map((row) => row.expiry), strike: rows.map((row) => row.strike), iv: rows.map((row) => row.mid) };
  return { kind: "quotes", ...market, quotes };
}

/** The result of work that may be a job: its progress is shown at `place` until it has ended. */
async function result(path, body, place) {
  const response = await ask("POST", path, { body, headers: { prefer: "respond-async" } });
  if (response.status !== 202) return response.json();
  const job = await response.json();
  const bar = h("progress", { className: "progress", max: 1, value: job.progress, "aria-label": "Progress" });
  const told = h("span", { className: "muted" }, job.state);
  const cancel = h("button", { type: "button", className: "plain", onclick: () => ask("DELETE", `/v1/jobs/${job.id}`) }, "Cancel");
  place.replaceChildren(bar, told, cancel);
  try {
    let last = job;
    for await (const state of events(`/v1/jobs/${job.id}/events`)) {
      last = { ...last, ...state };
      bar.value = last.progress ?? bar.value;
      told.textContent = `${last.state}, ${Math.round(100 * (last.progress ?? 0))} %${last.eta_s ? `, about ${Math.ceil(last.eta_s)} s more` : ""}`;
    }
    if (last.state === "cancelled") {
      announce("Cancelled.");
      throw new DOMException("Cancelled.", "AbortError");
    }
    return await json("GET", `/v1/jobs/${job.id}/result`);
  } finally {
    place.replaceChildren();
  }
}

/** The data of server-sent events; EventSource would send no key. */
async function* events(path) {
  const reader = (await ask("GET", path, { headers: { accept: "text/event-stream" } })).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value: piece, done } = await reader.read();
    if (done) return;
    const blocks = (rest + piece).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}

async function leverage() {
  const asked = { surface: surface(), mixing: Number(value("lv-mixing")), maturity: Number(value("lv-maturity")), n_particles: Number(value("lv-particles")),
    step_days: Number(value("lv-step")), estimator: value("lv-estimator"), seed: Number(value("lv-seed")) };
  const answer = await result("/v1/leverage", asked, document.getElementById("leverage-progress"));
  page.leverage = answer;
  page.prices = [];
  const { expiry, spot, value: values } = answer.leverage;
  const picked = [...new Set(Array.from({ length: Math.min(7, expiry.length) }, (_, i, n = Math.min(7, expiry.length)) => Math.round((i * (expiry.length - 1)) / Math.max(1, n - 1))))];
  document.getElementById("leverage-answer").replaceChildren(
    h("div", { id: "leverage-figure", className: "figure", role: "img" }),
    h("p", { className: "verdict muted" }, `${answer.n_clipped ?? 0} values of the local vol clipped. Repricing of the vanillas:`),
    h("div", { className: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Repricing" }, table("Vanillas repriced", ["Expiry", "Strike", "Target", "Model", "Error, bp", "± error"],
      answer.repricing.map((each) => [tenor(each.expiry), plain(each.strike), percent(each.target_iv), percent(each.model_iv), fixed(each.error_bp, 1), fixed(each.se_bp, 1)]))),
    ...(page.oneTouch ? barrierForm() : []));
  drawCurves("leverage-figure", picked.map((i) => ({ expiry: expiry[i], x: spot[i], y: values[i] })), { x: "spot", y: "leverage" });
  announce("The leverage function is there.");
}

function barrierForm() {
  const spot = Number(value("lv-spot"));
  return [h("h3", {}, "One-touch and no-touch"),
    h("form", { id: "one-touch-form", onsubmit: submit(oneTouch) }, h("div", { className: "fields" },
      field("ot-level", "Level", number(plain(1.05 * spot, 5))), field("ot-upper", "Upper level, of a double", number("", { required: false })), field("ot-direction", "Direction", choice(["up", "down"])),
      field("ot-expiry", "Expiry, years", number(value("lv-maturity"))), field("ot-kind", "Kind", choice([["one_touch", "one-touch"], ["no_touch", "no-touch"]])),
      field("ot-paid", "Paid", choice(["at_expiry", "at_hit"])), field("ot-payout", "Payout in", choice(["domestic", "foreign"])),
      field("ot-model", "Model", choice([["slv", "SLV"], ["lv", "local vol"], ["heston", "Heston"], ["bs", "Black-Scholes"]])), field("ot-paths", "Paths", number(50000, { step: 1 }))),
    h("div", { className: "buttons" }, h("button", { type: "submit" }, "Price the barrier"))),
    h("div", { id: "one-touch-progress" }), h("div", { id: "one-touch-answer", className: "scroll", tabIndex: 0, role: "region", "aria-label": "Prices of barriers" })];
}

async function oneTouch() {
  const upper = value("ot-upper");
  const barrier = { ...(upper === "" ? { level: Number(value("ot-level")), direction: value("ot-direction") } : { levels: [Number(value("ot-level")), Number(upper)] }),
    expiry: Number(value("ot-expiry")), kind: value("ot-kind"), paid: value("ot-paid"), payout: value("ot-payout") };
  const model = value("ot-model");
  const asked = { leverage: page.leverage.id, model, barriers: [barrier], n_paths: Number(value("ot-paths")), greeks: true, seed: Number(value("lv-seed")) };
  const { prices: [price] } = await result("/v1/one-touch", asked, document.getElementById("one-touch-progress"));
  page.prices.unshift([barrier.levels ? barrier.levels.map((level) => plain(level)).join(" – ") : `${barrier.direction} ${plain(barrier.level)}`, tenor(barrier.expiry),
    `${barrier.kind.replace("_", "-")} ${barrier.paid.replace("_", " ")}`, model, digits(price.price, 5), digits(price.se, 2), digits(price.tv, 5), digits(price.delta, 4)]);
  document.getElementById("one-touch-answer").replaceChildren(table("Prices of barriers", ["Level", "Expiry", "Pays", "Model", "Price", "± error", "Black-Scholes", "Delta"], page.prices, [2, 3]));
  announce(`Priced: ${digits(price.price, 5)}.`);
}
