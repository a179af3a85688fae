"""JSON: the raw body straight into the schema, the answer straight from plain documents."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from . import spans
from .validation import from_validation, n_members, require_modest, twice

Body = TypeVar("Body", bound=BaseModel)


def decode(body: bytes, into: type[Body]) -> Body:
    """raises  InvalidRequest with a pointer to every field that is not as the schema says, TooLarge"""
    body = body.removeprefix(spans.MARK)
    amounts = spans.json_amounts(spans.view(body))
    require_modest(amounts)
    try:
        decoded = into.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None
    # Of two fields of one name the parser keeps the last: then there are fewer than were counted. There are fewer too
    # where the schema lets unknown fields pass.
    if n_members(decoded) != amounts.members:
        _refuse_twins(body)
    return decoded


def _refuse_twins(body: bytes) -> None:
    """raises  InvalidRequest if an object of the body has two fields of one name"""
    json.loads(body, object_pairs_hook=_once)


def _once(members: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        raise twice(next(name for name in names if names.count(name) > 1))


def encode(document: Any) -> bytes:
    return to_json(document)
