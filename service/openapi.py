"""What FastAPI's OpenAPI document cannot know of endpoints that read the raw body and build their own response."""

from collections.abc import Iterable, Sequence
from inspect import getdoc
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from calibrant.models import MODELS

from .routing import JSON, Route
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
        responses[202] = {"description": "Answered later: a job.", "content": content}
    more: dict[str, Any] = {"parameters": [_parameter(name) for name in route.parameters]}
    if route.body is not None:
        more["requestBody"] = {"required": True, "content": _content(route.body, route.takes)}
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


def _content(model: type[BaseModel] | None, media_types: Sequence[str]) -> dict[str, Any]:
    named = {} if model is None else {"$ref": _COMPONENTS.format(model=model.__name__)}
    return {media_type: {"schema": named} for media_type in media_types}
