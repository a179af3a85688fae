// The page: what is loaded, what is fitted, and who is told of it.

import { Problem, ask, json, key, stages, useKey } from "./api.js";
import { begin as beginBarriers, offer as offerBarriers } from "./barriers.js";
import { $, announce, digits, h, percent, save, tenor } from "./dom.js";
import { drawResiduals, drawSmiles, drawSurface, saveFigure, warmUp } from "./figures.js";
import { askBack, beginIntake, panelOf } from "./intake.js";
import { byExpiry, read, rows as rowsOf, surface } from "./panels.js";
import { curl, python } from "./snippets.js";
import { quotesCsv, showArbitrage, showExcluded, showParameters, showProblem, showQuotes, showSummary, symbol } from "./views.js";

const state = { models: [], intake: null, panels: [], panel: null, rows: [], fit: null, kept: null, files: [], running: null };

// Settings ------------------------------------------------------------------------------------------------------------

const model = () => state.models.find((each) => each.model === $("model").value);

function showLimits() {
  const { parameters, admissible_bounds: bounds } = model();
  const number = (name, what, placeholder) => h("td", {}, h("input", { type: "number", step: "any", "data-parameter": name, "data-what": what,
    "aria-label": `${name}: ${what}`, placeholder }));
  $("limit-rows").replaceChildren(...parameters.map((name) => h("tr", {}, h("th", { scope: "row" }, symbol(name)),
    number(name, "lower bound", digits(bounds[name][0], 3)), number(name, "upper bound", digits(bounds[name][1], 3)), number(name, "held at", "free"))));
}

function limits() {
  const bounds = {}, held = {};
  for (const input of $("limit-rows").querySelectorAll("input")) {
    if (input.value === "") continue;
    const { parameter: name, what } = input.dataset;
    if (what === "held at") held[name] = Number(input.value);
    else {
      bounds[name] ??= [...model().admissible_bounds[name]];
      bounds[name][what === "lower bound" ? 0 : 1] = Number(input.value);
    }
  }
  return { ...(Object.keys(bounds).length ? { bounds } : {}), ...(Object.keys(held).length ? { fixed: held } : {}) };
}

function setLimits({ bounds = {}, fixed = {} }) {
  for (const input of $("limit-rows").querySelectorAll("input")) {
    const { parameter: name, what } = input.dataset;
    const value = what === "held at" ? fixed[name] : bounds[name]?.[what === "lower bound" ? 0 : 1];
    input.value = value ?? "";
  }
  $("limits").open = Boolean(Object.keys(bounds).length + Object.keys(fixed).length);
}

function request() {
  // What a file says beside its quotes holds for its own model; what the page has a field for is the field's.
  const { quotes, model: named, refine, loss, bounds, fixed, start, prior, budget_ms, detail, ...rest } = state.panel.request;
  const own = (named ?? "heston") === $("model").value ? { start, prior } : {};
  const asked = { model: $("model").value, refine: $("refine").value, loss: $("loss").value, ...limits(), ...own, ...rest, detail: true, quotes };
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined && value !== null));
}

// Panels --------------------------------------------------------------------------------------------------------------

async function load(files) {
  state.files = [...files];
  $("intake").classList.add("busy");
  showProblem(null);
  try {
    const panels = [];
    for (const file of state.files) panels.push(...await read(file, state.intake));
    state.panels = panels;
    $("panel-choice").hidden = panels.length < 2;
    $("panel").replaceChildren(...panels.map((panel, i) => h("option", { value: i }, panel.label)));
    await choose(0);
  } catch (error) {
    await failed(error, () => load(files));
    askBack(error);
  } finally {
    $("intake").classList.remove("busy");
  }
}

async function choose(i) {
  state.panel = state.panels[i];
  state.rows = rowsOf(state.panel.request);
  // A kept fit is of the panel that it was made of.
  state.kept = null;
  state.fit = null;
  const there = state.rows.filter((row) => Number.isFinite(row.mid));
  const groups = byExpiry(there);
  $("panel-summary").hidden = false;
  $("panel-summary").textContent = groups.length
    ? `${there.length} quotes, ${groups.length} ${groups.length > 1 ? "expiries" : "expiry"} from ${tenor(groups[0].expiry)} to ${tenor(groups[groups.length - 1].expiry)}, vols ${percent(Math.min(...there.map((row) => row.mid)), 1)} to ${percent(Math.max(...there.map((row) => row.mid)), 1)}`
    : "No quote in it has a vol.";
  const asked = state.panel.request;
  if (state.models.some((each) => each.model === asked.model)) $("model").value = asked.model;
  $("refine").value = asked.refine ?? "lm";
  $("loss").value = asked.loss ?? "squared";
  showLimits();
  setLimits(asked);
  $("fit").disabled = false;
  await calibrate();
}

// Fits ----------------------------------------------------------------------------------------------------------------

async function calibrate() {
  state.running?.abort();
  const running = (state.running = new AbortController());
  const began = performance.now();
  document.body.classList.add("waiting");
  $("answer").classList.add("busy");
  try {
    const { panel } = state;
    const asked = request();
    const response = await ask("POST", "/v1/calibrate", { body: asked, signal: running.signal });
    const answer = await response.json();
    const elapsed = performance.now() - began;
    const list = rowsOf(panel.request);
    for (const { index, reason } of answer.fit.excluded) list[index].reason = reason;
    list.forEach((row, i) => { row.model = answer.model_iv?.[i] ?? NaN; });
    for (const { kind, expiry, strike } of answer.arbitrage.quotes.violations) {
      const near = (a, b) => Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b));
      for (const row of list) if (near(row.expiry, expiry) && near(row.strike, strike)) row.violation = kind;
    }
    const fit = { panel, request: asked, answer, rows: list, stages: stages(response), elapsed, lines: [] };
    try {
      fit.lines = await surface(answer.model, answer.parameters, list.filter((row) => !row.reason && Number.isFinite(row.mid)));
    } catch (error) {
      if (error.code === "unauthenticated") throw error;
      // A key may be good for calibrations alone: then the quotes are shown with the residuals, without the curves.
      fit.panel = { ...panel, warnings: [...(panel.warnings || []), { code: "no_curves", detail: `The fitted curves are not shown: ${error.message}` }] };
    }
    if (running.signal.aborted) return;
    showProblem(null);
    Object.assign(state, { fit, rows: list });
    show();
  } catch (error) {
    if (error.name === "AbortError") return;
    state.fit = null;
    state.rows = rowsOf(state.panel.request);
    show();
    await failed(error, calibrate);
  } finally {
    if (state.running === running) {
      $("answer").classList.remove("busy");
      document.body.classList.remove("waiting");
    }
  }
}

function draw() {
  const axis = $("axis").value;
  const view = document.querySelector("input[name=surface-view]:checked").value;
  drawSurface("surface-figure", state.rows, state.fit, view, axis);
  drawSmiles("smiles-figure", state.rows, state.fit, state.kept, axis);
  drawResiduals("residuals-figure", state.rows, axis);
}

const mark = (shape, text, colour) => [h("span", {}, h("svg", { viewBox: "0 0 24 12", class: `${colour}-colour`, "aria-hidden": "true" }, shape), text)];

function legend() {
  const line = (dash) => h("line", { x1: 0, x2: 24, y1: 6, y2: 6, stroke: "var(--c)", "stroke-width": 2, "stroke-dasharray": dash });
  const dot = (fill, stroke) => h("circle", { cx: 12, cy: 6, r: 4, fill, stroke, "stroke-width": 1.6 });
  const has = (of) => state.rows.some(of);
  $("smiles-legend").replaceChildren(...[
    state.fit ? mark(line(), state.fit.answer.model, "fit") : [],
    state.kept ? mark(line("5 3"), `kept: ${state.kept.answer.model}`, "kept") : [],
    mark(dot("var(--market)", "none"), has((row) => row.bid !== null && row.ask !== null) ? "quote, bid to ask" : "quote", "market"),
    has((row) => row.violation) ? mark(dot("none", "var(--bad)"), "arbitrage", "bad") : [],
    has((row) => row.reason) ? mark(h("path", { d: "M8 2l8 8m0-8l-8 8", stroke: "var(--left-out)", "stroke-width": 1.6, fill: "none" }), "left out", "market") : [],
  ].flat());
}

/** The answer, or the quotes alone where there is none: nothing on screen is of another panel or fit. */
function show() {
  $("welcome").hidden = true;
  $("answer").classList.remove("offstage");
  $("answer").inert = false;
  const { fit, kept } = state;
  $("keep").hidden = !fit;
  $("unkeep").hidden = !kept;
  for (const id of ["save-result"]) $(id).disabled = !fit;
  if (fit) {
    showSummary(fit, kept);
    showParameters(fit, kept);
    showArbitrage(fit);
  } else {
    $("summary-title").textContent = state.panel.label;
    $("badge").textContent = "no fit";
    $("badge").className = "badge bad";
    for (const id of ["figures", "stages", "parameters", "arbitrage", "warnings"]) $(id).replaceChildren();
    $("warnings").hidden = $("message").hidden = true;
    $("parameters").append(h("p", { className: "muted" }, "There is no fit."));
    $("arbitrage").append(h("p", { className: "muted" }, "There is no fit: nothing was checked."));
  }
  showExcluded(state.rows, state.panel);
  showQuotes(state.rows);
  const asked = request();
  $("curl").textContent = curl(asked);
  $("python").textContent = python(asked);
  $("made").hidden = !state.panel.made;
  if (state.panel.made) $("made-body").replaceChildren(state.panel.made);
  legend();
  draw();
  offerBarriers(fit);
}

// Refusals and keys ----------------------------------------------------------------------------------------------------

async function failed(error, again) {
  if (!(error instanceof Problem)) console.error(error);
  if (error.code === "unauthenticated" && await askForKey(key() ? "The service does not know this key." : "The service wants a key.")) {
    await start();
    return again();
  }
  showProblem(error, state.panel ? state.rows : undefined);
  announce(error.message);
  return undefined;
}

function askForKey(why) {
  const dialog = $("key-dialog");
  $("key-why").textContent = `${why} It is sent with every request from this page, kept until this tab is closed, and nowhere else.`;
  $("key").value = "";
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    if (dialog.returnValue === "use" && $("key").value) useKey($("key").value.trim());
    if (dialog.returnValue === "forget") useKey("");
    $("key").value = "";
    resolve(dialog.returnValue === "use");
  }, { once: true }));
}

async function start() {
  try {
    const [{ models }, document] = await Promise.all([json("GET", "/v1/models"), json("GET", "/openapi.json")]);
    state.models = models;
    const paths = new Set(Object.keys(document.paths));
    state.intake = beginIntake(document) ? panelOf : null;
    const chosen = $("model").value;
    $("model").replaceChildren(...models.map((each) => h("option", { value: each.model }, each.model.replaceAll("_", " "))));
    if (chosen) $("model").value = chosen;
    showLimits();
    const networks = models.filter((each) => each.model_version).map((each) => each.model_version.replace(/@.*/, ""));
    $("service").textContent = `${models.length} models; networks: ${networks.join(", ") || "none"}`;
    if (state.intake) {
      $("formats").textContent = "CSV, Excel, Parquet or JSON: panels, chains of prices, delta quotes";
      for (const each of window.document.querySelectorAll("[data-chain]")) each.hidden = false;
      $("intake-box").hidden = false;
    }
    beginBarriers($("barriers"), paths, failed);
    offerBarriers(state.fit);
    requestIdleCallback(() => state.panel || warmUp("surface-figure"));
  } catch (error) {
    $("service").textContent = "Not connected";
    await failed(error, async () => {});
  }
}

// Colours -------------------------------------------------------------------------------------------------------------

const THEMES = { auto: ["◐ Auto", "as the system"], light: ["○ Light", "light"], dark: ["● Dark", "dark"] };
const system = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  localStorage.setItem("calibrant-theme", theme);
  document.documentElement.dataset.theme = theme === "auto" ? (system.matches ? "dark" : "light") : theme;
  const [text, meaning] = THEMES[theme];
  $("theme").textContent = text;
  $("theme").setAttribute("aria-label", `${text}: colours ${meaning}`);
  if (state.panel) draw();
}

const theme = () => (localStorage.getItem("calibrant-theme") in THEMES ? localStorage.getItem("calibrant-theme") : "auto");

// What people do -------------------------------------------------------------------------------------------------------

function on(id, event, act) {
  $(id).addEventListener(event, act);
}

on("file", "change", (event) => event.target.files.length && load(event.target.files).then(() => { event.target.value = ""; }));
for (const event of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(event, (dragged) => {
    dragged.preventDefault();
    $("drop").classList.toggle("over", event === "dragenter" || event === "dragover");
    if (event === "drop" && dragged.dataTransfer.files.length) load(dragged.dataTransfer.files);
  });
}
on("paste-use", "click", () => $("paste").value.trim() && load([new File([$("paste").value], $("paste").value.trimStart().startsWith("{") ? "pasted.json" : "pasted.csv")]));
document.addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text");
  if (!event.target.closest("input, textarea") && text.includes("\n")) load([new File([text], "pasted.csv")]);
});
on("example", "change", async (event) => {
  const name = event.target.value;
  if (!name) return;
  try {
    load([new File([await (await ask("GET", `/console/${name}`)).blob()], name)]);
  } catch (error) {
    failed(error, () => {});
  }
});
on("panel", "change", (event) => choose(Number(event.target.value)));
on("intake-form", "submit", (event) => { event.preventDefault(); if (state.files.length) load(state.files); });
on("settings", "submit", (event) => { event.preventDefault(); calibrate(); });
on("model", "change", () => { showLimits(); if (state.panel) calibrate(); });
for (const id of ["refine", "loss"]) on(id, "change", () => state.panel && calibrate());
on("limits-clear", "click", () => { setLimits({}); if (state.panel) calibrate(); });
on("keep", "click", () => { state.kept = state.fit; show(); announce("This fit is kept; change the settings to compare."); });
on("unkeep", "click", () => { state.kept = null; show(); });
on("axis", "change", draw);
on("surface-view", "change", draw);
on("theme", "click", () => { const names = Object.keys(THEMES); setTheme(names[(names.indexOf(theme()) + 1) % names.length]); });
system.addEventListener("change", () => setTheme(theme()));
on("key-open", "click", async () => { if (await askForKey("For a service with keys.")) start(); });
const name = () => (state.panel.label || "panel").replace(/[^\w.-]+/g, "_");
on("save-result", "click", () => save(`${name()}_${state.fit.answer.model}.json`, `${JSON.stringify(state.fit.answer, null, 1)}\n`, "application/json"));
on("save-request", "click", () => save(`${name()}_request.json`, `${JSON.stringify(request())}\n`, "application/json"));
on("save-quotes", "click", () => save(`${name()}_quotes.csv`, quotesCsv(state.rows), "text/csv"));
for (const button of document.querySelectorAll(".save")) button.addEventListener("click", () => saveFigure(button.dataset.figure, `${name()}_${button.dataset.figure.replace("-figure", "")}`));
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.of).textContent);
    announce("Copied.");
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => state.panel && draw(), 200); });

setTheme(theme());
start();
