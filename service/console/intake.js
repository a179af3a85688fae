// Quotes as people have them, made panels by the service, and what it asks about them.

import { ask } from "./api.js";
import { $, digits, fixed, h, plain, table, tenor } from "./dom.js";

const PATH = "/v1/panel";
const page = { settings: [] };

/** What may be said beside a file, as this service's document has it; none where it reads no chains. */
export function beginIntake({ paths }) {
  page.settings = (paths[PATH]?.post.parameters || []).filter((each) => each.in === "query");
  $("intake-asked").replaceChildren();
  $("intake-fields").replaceChildren(...page.settings.map(field));
  return page.settings.length > 0;
}

const id = (name) => `intake-${name}`;

function field({ name, schema, description }) {
  const label = name.replaceAll("_", " ");
  const values = schema.enum;
  const input = values
    ? h("select", { id: id(name) }, h("option", { value: "" }, "–"), values.map((value) => h("option", { value }, value)))
    : h("input", { id: id(name), type: schema.type === "number" ? "number" : "text", step: "any", autocomplete: "off" });
  input.title = description || "";
  return h("div", { "data-setting": name }, h("label", { htmlFor: id(name) }, label), input);
}

/** The settings that were filled in, as parameters of the query. */
function settings() {
  const given = page.settings.map(({ name }) => [name, $(id(name)).value.trim()]).filter(([, value]) => value !== "");
  return new URLSearchParams(given).toString();
}

/** What a refusal asks for, where that has a field here: the fields that answer it come first. */
export function askBack(problem) {
  const asked = new Set((problem.errors || []).map(({ pointer }) => (pointer || "").split("/")[1]));
  const open = [...document.querySelectorAll("#intake-form [data-setting]")].filter((each) => asked.has(each.dataset.setting));
  if (!open.length) return;
  $("intake-asked").append(...open);
  $("intake-box").open = true;
  open[0].querySelector("input, select").focus();
}

/** The panel of a file. */
export async function panelOf(file) {
  const query = settings();
  const isJson = (await file.slice(0, 64).text()).trimStart().startsWith("{");
  const type = isJson ? "application/json" : "application/octet-stream";
  const body = new Blob([file], { type });
  const made = await (await ask("POST", `${PATH}${query ? `?${query}` : ""}`, { body, headers: { "content-type": type } })).json();
  const counts = new Map();
  for (const { reason } of made.excluded) counts.set(reason, (counts.get(reason) || 0) + 1);
  const request = { id: made.id, as_of: made.as_of, quotes: made.quotes };
  return [{
    label: [made.id ?? file.name.replace(/\.\w+$/, ""), made.as_of].filter(Boolean).join(" "),
    request: Object.fromEntries(Object.entries(request).filter(([, value]) => value !== null && value !== undefined)),
    warnings: made.warnings,
    excluded: [...counts].map(([reason, count]) => ({ reason, count })),
    made: made.expiries.length ? forwards(made) : null,
  }];
}

function forwards({ expiries, exercise }) {
  const american = expiries.some((each) => each.early_exercise);
  const source = { parity: "put-call parity", given: "as given", spot: "carry from spot" };
  const rows = expiries.map((each) => [each.expiration, tenor(each.expiry), plain(each.forward, 7), digits(each.forward_error, 2), source[each.forward_from] || each.forward_from,
    plain(each.discount, 6), digits(each.discount_error, 2), each.n_pairs_rejected ? `${each.n_pairs} (${each.n_pairs_rejected} rejected)` : String(each.n_pairs), String(each.n_quotes),
    ...(american ? [each.early_exercise ? `${fixed(each.early_exercise.median_bp, 1)} / ${fixed(each.early_exercise.max_bp, 1)} bp` : "–"] : [])]);
  return h("div", {}, exercise ? h("p", { className: "muted verdict" }, `${exercise[0].toUpperCase()}${exercise.slice(1)} options.`) : null,
    table("Forwards and discounts", ["Expiration", "Expiry", "Forward", "± error", "Found by", "Discount", "± error", "Pairs", "Quotes", ...(american ? ["Early exercise, median / most"] : [])], rows, [4]));
}
