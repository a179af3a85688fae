"""What FastAPI's OpenAPI document cannot know of endpoints that read the raw body and build their own response."""

from collections.abc import Iterable, Sequence
from inspect import getdoc
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from calibrant.models import MODELS

from .routing import FILES, JSON, Route
from .wire import schema

_PROBLEM = "application/problem+json"
_COMPONENTS = "#/components/schemas/{model}"


def documented(route: Route) -> dict[str, Any]:
    """Arguments of `add_api_route` that say what an endpoint takes, what it answers and how it refuses."""
    refused = {"description": "Refused; `code` says why.", "content": _content(schema.ProblemDocument, (_PROBLEM,))}
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer.", "content": _content(route.answer, route.gives)},
        "4XX": refused,
        "5XX": refused,
    }
    if route.accepted is not None:
        content = _content(route.accepted, (JSON,))
        responses[202] = {"description": "With `Prefer: respond-async`.", "content": content}
    more: dict[str, Any] = {"parameters": [*map(_parameter, route.parameters), *_queried(route.query)]}
    if route.body is not None:
        described = [media_type for media_type in route.takes if media_type not in FILES]
        content = _content(route.body, described) | _files(route.takes)
        more["requestBody"] = {"required": True, "content": content}
    summary = (getdoc(route.endpoint) or "").partition("\n")[0].rstrip(".")
    return {"summary": summary, "responses": responses, "openapi_extra": more, "response_class": Response}


def described(document: dict[str, Any], routes: Iterable[Route]) -> dict[str, Any]:
    """The document with the models that `documented` only names."""
    models: set[type[BaseModel]] = {schema.ProblemDocument}
    for route in routes:
        models |= {model for model in (route.body, route.answer, route.accepted) if model is not None}
    # Answers too as if they were read: what they may leave out is not required of them.
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_COMPONENTS)
    return {**document, "components": {"schemas": definitions["$defs"]}}


def _parameter(name: str) -> dict[str, Any]:
    values = {"type": "string", "enum": list(MODELS)} if name == "model" else {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": values}


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


def _content(model: type[BaseModel] | None, media_types: Sequence[str]) -> dict[str, Any]:
    named = {} if model is None else {"$ref": _COMPONENTS.format(model=model.__name__)}
    return {media_type: {"schema": named} for media_type in media_types}
