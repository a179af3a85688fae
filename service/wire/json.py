"""JSON: the raw body straight into the schema, the answer straight from plain documents."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from . import spans
from .validation import from_validation, require_modest

Body = TypeVar("Body", bound=BaseModel)


def decode(body: bytes, into: type[Body]) -> Body:
    """raises  InvalidRequest with a pointer to every field that is not as the schema says, TooLarge"""
    body = body.removeprefix(spans.MARK)
    require_modest(spans.json_amounts(spans.view(body)))
    try:
        return into.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None


def encode(document: Any) -> bytes:
    return to_json(document)
