"""The OpenAPI document, from the route table and the models of the schema."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from inspect import getdoc
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from calibrant.models import MODELS

from .routing import JSON, Route
from .wire import schema

_PROBLEM = "application/problem+json"
_COMPONENTS = "#/components/schemas/{model}"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css">
<title>Calibrant</title>
</head>
<body>
<div id="page"></div>
<script src="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true})</script>
</body>
</html>
"""
"""Shows the document in a browser."""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    models: set[type[BaseModel]] = {schema.ProblemDocument}
    for route in routes:
        if route.endpoint.__module__.endswith(".documentation"):
            continue
        models |= {model for model in (route.body, route.answer, route.accepted) if model is not None}
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    # Answers too as if they were read: what they may leave out is not required of them.
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_COMPONENTS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Calibrant",
            "description": "Stochastic-volatility models calibrated to option quotes.",
            "version": version("calibrant"),
        },
        "paths": paths,
        "components": {"schemas": definitions["$defs"]},
    }


def _operation(route: Route) -> dict[str, Any]:
    summary, _, description = (getdoc(route.endpoint) or "").partition("\n")
    refused = {"description": "Refused; `code` says why.", "content": _content(schema.ProblemDocument, (_PROBLEM,))}
    operation: dict[str, Any] = {
        "summary": summary.rstrip("."),
        "description": f"{summary}\n{description}".strip(),
        "operationId": re.sub(r"\W+", "_", f"{route.method}{route.path}").strip("_").lower(),
        "parameters": [_parameter(name) for name in route.parameters],
        "responses": {
            "200": {"description": "The answer.", "content": _content(route.answer, route.gives)},
            "4XX": refused,
            "5XX": refused,
        },
    }
    if route.accepted is not None:
        content = _content(route.accepted, (JSON,))
        operation["responses"]["202"] = {"description": "With `Prefer: respond-async`.", "content": content}
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body, route.takes)}
    return operation


def _parameter(name: str) -> dict[str, Any]:
    values = {"type": "string", "enum": list(MODELS)} if name == "model" else {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": values}


def _content(model: type[BaseModel] | None, media_types: Sequence[str]) -> dict[str, Any]:
    described = {} if model is None else {"$ref": _COMPONENTS.format(model=model.__name__)}
    return {media_type: {"schema": described} for media_type in media_types}
