// Quotes as people have them, made panels by the service.

import { Problem, ask } from "./api.js";
import { $, h } from "./dom.js";

/** How to have a file read, where this service does that; else null. */
export function intakeFor(paths) {
  return paths.has("/v1/panel") ? panelsOf : null;
}
export function intakeFields() {}
export function intakeOptions() { return {}; }
async function panelsOf(file) { throw new Problem({ detail: `${file.name} is no panel.` }, 0); }
