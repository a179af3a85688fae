// The request on screen, as others send it.

import { address, key } from "./api.js";

/** Numbers of a column on one line. */
function compact(request) {
  return JSON.stringify(request, null, 1).replace(/\[\s+([^[\]{}]*?)\s+\]/g, (_, inside) => `[${inside.replace(/\s*\n\s*/g, " ")}]`);
}

export function curl(request) {
  const authorised = key() ? ` \\\n  -H "Authorization: Bearer $CALIBRANT_KEY"` : "";
  return `curl -X POST ${address("/v1/calibrate")} \\\n  -H 'Content-Type: application/json'${authorised} \\\n  --data-binary @- <<'JSON'\n${compact(request)}\nJSON\n`;
}

export function python(request) {
  const { quotes, ...settings } = request;
  const authorised = key() ? ', key=os.environ["CALIBRANT_KEY"]' : "";
  return `import json${key() ? "\nimport os" : ""}

from calibrant.client import Client

request = json.loads(
    """${compact({ quotes, ...settings }).replaceAll("\\", "\\\\")}"""
)

with Client("${address("/").replace(/\/$/, "")}"${authorised}) as client:
    answer = client.calibrate(request.pop("quotes"), **request)
    print(answer.status, answer.fit.rmse_bp)
    print(answer.parameters)
`;
}
