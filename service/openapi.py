"""What FastAPI's OpenAPI document cannot know of endpoints that read the raw body and build their own response."""

import json
from collections.abc import Iterable, Mapping, Sequence
from inspect import getdoc
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from calibrant.models import MODELS

from .context import DEADLINE_HEADER
from .routing import FILES, JSON, Route
from .wire import schema

NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"
_PROBLEM = "application/problem+json"
_COMPONENTS = "#/components/schemas/{model}"
_TEXT: dict[str, Any] = {"type": "string"}
_POSITIVE: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0}
_KEYS = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer KEY`, where the service wants keys: 401 without one, 403 with one that "
        "is not good for that.",
    }
}
EXAMPLES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "wire" / "examples.json").read_bytes())
"""By method and path: a `request` and its `answer`, each by media type. `service.examples` writes them."""
_GROUPS = {
    "/v1/calibrate": "Calibration",
    "/v1/jobs": "Jobs",
    "/v2": "Open Inference Protocol",
    "/v1": "Models and prices",
    "": "Operation",
}
_ECHOED = {
    "X-Request-Id": {"description": "The request's, or one made for it.", "schema": _TEXT},
    "Server-Timing": {"description": "Milliseconds of each stage, and in all.", "schema": _TEXT},
}
_REFUSED = {**_ECHOED, "Retry-After": {"description": "Seconds, where it may be answered then.", "schema": _TEXT}}
_LATER = {
    **_ECHOED,
    "Location": {"description": "Path of the job.", "schema": _TEXT},
    "Preference-Applied": {"description": "`respond-async`.", "schema": _TEXT},
}


def documented(route: Route) -> dict[str, Any]:
    """Arguments of `add_api_route` that say what an endpoint takes, what it answers and how it refuses."""
    example = EXAMPLES.get(f"{route.method} {route.path}", {})
    problem = EXAMPLES["problem"]["v2" if route.oip else "v1"]
    refused = {
        "description": "Refused; `code` says why.",
        "content": _content(schema.ProblemDocument, (_PROBLEM,), {_PROBLEM: problem}),
        "headers": _REFUSED,
    }
    responses: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "The answer.",
            "content": _content(route.answer, route.gives, example.get("answer", {})),
            "headers": _ECHOED,
        },
        "4XX": refused,
        "5XX": refused,
    }
    if route.accepted is not None:
        content = _content(route.accepted, (JSON,), {JSON: EXAMPLES["accepted"]})
        responses[202] = {"description": "Answered later: a job.", "content": content, "headers": _LATER}
    more: dict[str, Any] = {
        "parameters": [*map(_parameter, route.parameters), *_queried(route.query), *_headers(route)],
        "security": [] if route.open else [{"key": []}, {}],
    }
    if route.body is not None:
        told = [media_type for media_type in route.takes if media_type not in FILES]
        content = _content(route.body, told, example.get("request", {})) | _files(route.takes)
        more["requestBody"] = {"required": not route.oip or route.work is not None, "content": content}
    text = getdoc(route.endpoint) or ""
    if route.scope is not None:
        text += f"\n\nNeeds a key that is good for `{route.scope.value}`, where the service wants keys."
    return {
        "summary": text.partition("\n")[0].rstrip("."),
        "description": text,
        "tags": [next(group for start, group in _GROUPS.items() if route.path.startswith(start))],
        "responses": responses,
        "openapi_extra": more,
        "response_class": Response,
    }


def described(document: dict[str, Any], routes: Iterable[Route]) -> dict[str, Any]:
    """The document with the models that `documented` only names."""
    models: set[type[BaseModel]] = {schema.ProblemDocument}
    for route in routes:
        models |= {model for model in (route.body, route.answer, route.accepted) if model is not None}
    # Answers too as if they were read: what they may leave out is not required of them.
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_COMPONENTS)
    return {**document, "components": {"schemas": definitions["$defs"], "securitySchemes": _KEYS}}


def _parameter(name: str) -> dict[str, Any]:
    values = {"type": "string", "enum": list(MODELS)} if name == "model" else _TEXT
    told = {
        "model": "Which model.",
        "version": "Of its network, as `/v1/models` and `/v2/models/{model}` say.",
        "id": "Of the job, as it was answered.",
    }
    return {"name": name, "in": "path", "required": True, "schema": values, "description": told[name]}


def _headers(route: Route) -> list[dict[str, Any]]:
    """Those of a request that have a meaning there, beside HTTP's own."""
    told = [("X-Request-Id", "Echoed, and in the logs: up to 128 printable characters.", _TEXT)]
    if route.work is not None:
        told.append(
            (
                DEADLINE_HEADER.title(),
                "Milliseconds from the first byte received within which there must be an answer.",
                _POSITIVE,
            )
        )
    if route.accepted is not None:
        told.append(("Prefer", "`respond-async`: 202 at once, and the answer as the result of a job.", _TEXT))
    return [{"name": name, "in": "header", "description": text, "schema": values} for name, text, values in told]


def _queried(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    """The fields of a model as parameters of the query, where lists are parted by commas."""
    if model is None:
        return []
    fields = model.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _plain(field)}
        | ({"description": field["description"]} if "description" in field else {})
        for name, field in fields.items()
    ]


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that is there."""
    (kind,) = (each for each in field["anyOf"] if each.get("type") != "null")
    found: dict[str, Any] = kind if kind.get("type") != "array" else {"type": "string"}
    return found


def _files(takes: Sequence[str]) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in takes if kind in FILES}


def _content(
    model: type[BaseModel] | None, media_types: Sequence[str], examples: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """`examples` by their media type."""
    named = {} if model is None else {"$ref": _COMPONENTS.format(model=model.__name__)}
    content: dict[str, Any] = {}
    for media_type in media_types:
        # What comes in lines is no one document, and what is binary cannot be written here.
        of_lines = media_type in (NDJSON, EVENTS)
        content[media_type] = {"schema": _TEXT if of_lines else named}
        if media_type in examples:
            content[media_type]["example"] = examples[media_type]
    return content
