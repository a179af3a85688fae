"""The OpenAPI document of endpoints that read the raw body and build their own response."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .wire import schema

JSON = "application/json"
PROBLEM = "application/problem+json"
FORMATS = (JSON, "application/msgpack")
"""Of all that takes and gives plain documents."""
_COMPONENTS = "#/components/schemas/{model}"


def documented(
    body: type[BaseModel],
    answer: type[BaseModel],
    takes: Sequence[str] = FORMATS,
    gives: Sequence[str] = FORMATS,
) -> dict[str, Any]:
    """Arguments of `add_api_route` that document an endpoint: what it takes, what it answers, how it refuses."""
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": _content(body, takes)}},
        **answering(answer, gives),
    }


def answering(answer: type[BaseModel] | None, gives: Sequence[str] = (JSON,)) -> dict[str, Any]:
    """The same of an endpoint that takes no body; None is an answer that no model describes."""
    problem = {"description": "Refused; `code` says why.", "content": _content(schema.ProblemDocument, (PROBLEM,))}
    given = {"description": "The answer.", "content": _content(answer, gives)}
    return {"responses": {200: given, "4XX": problem, "5XX": problem}}


def _content(model: type[BaseModel] | None, media_types: Sequence[str]) -> dict[str, Any]:
    described = {} if model is None else {"$ref": _COMPONENTS.format(model=model.__name__)}
    return {media_type: {"schema": described} for media_type in media_types}


def describe(app: FastAPI, *models: type[BaseModel]) -> None:
    """Have `app` describe itself with these models, which `documented` and `answering` only name."""
    app.openapi = partial(_document, app, models)  # type: ignore[method-assign]


def _document(app: FastAPI, models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        # Answers too as if they were read: what they may leave out is not required of them.
        _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_COMPONENTS)
        document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
        app.openapi_schema = document
    return app.openapi_schema
