// The page of the API, by Swagger UI, from the document of this service; a service with keys gives it for a key.

const KEY = "calibrant-key";
const headers = () => (sessionStorage.getItem(KEY) ? { authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});
const address = new URL("../openapi.json", import.meta.url);

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function start() {
  const response = await fetch(address, { headers: headers() });
  if (response.status === 401) return askForKey();
  document.body.replaceChildren(element("div", { id: "swagger" }));
  const page = window.SwaggerUIBundle({
    spec: await response.json(), dom_id: "#swagger", deepLinking: true, tryItOutEnabled: true, displayRequestDuration: true, validatorUrl: null,
    presets: [window.SwaggerUIBundle.presets.apis], defaultModelsExpandDepth: 0,
    onComplete: () => headers().authorization && page.preauthorizeApiKey("key", sessionStorage.getItem(KEY)),
  });
  return page;
}

function askForKey() {
  const key = element("input", { type: "password", id: "key", autocomplete: "off" });
  const form = element("form", {}, element("h1", {}, "Calibrant: API"), element("label", { htmlFor: "key" }, "This service wants a key: "), key,
    " ", element("button", {}, "Use it"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, key.value.trim());
    start();
  });
  document.body.replaceChildren(element("main", {}, form));
}

if (window.SwaggerUIBundle) start();
else document.body.append(element("p", {}, "This page needs the package fastapi-offline beside the service: pip install 'calibrant[console]'. The document itself is at ",
  element("a", { href: address.href }, "/openapi.json"), "."));
