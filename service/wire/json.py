"""JSON: the raw body straight into the schema, the answer straight from plain documents."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from .amounts import MOST, Amounts, json_amounts, require_modest
from .quick import read
from .validation import from_validation, n_members, twice

Body = TypeVar("Body", bound=BaseModel)

MARK = b"\xef\xbb\xbf"
"""UTF-8's byte-order mark, with which some begin JSON: to be passed over (RFC 8259, 8.1)."""
_QUICK_BYTES = MOST.text
"""In no more there is nothing that takes long to read: 3 ms for the worst found, numbers of 480 digits, which pydantic
reads in a thirtieth."""


def decode(body: bytes, into: type[Body], most: Amounts = MOST) -> Body:
    """raises  InvalidRequest with a pointer to every field that is not as the schema says, TooLarge"""
    text = body.removeprefix(MARK)
    quickly = read(text, into, binary=False) if len(text) <= _QUICK_BYTES else None
    if quickly is None:
        return decode_thoroughly(body, into, most)
    decoded, given = quickly
    _refuse_twins(text, given)
    return decoded


def decode_thoroughly(body: bytes, into: type[Body], most: Amounts = MOST) -> Body:
    """The same by pydantic, for models that are no struct of msgspec's too."""
    text = body.removeprefix(MARK)
    require_modest(json_amounts(text), most)
    try:
        decoded = into.model_validate_json(text)
    except ValidationError as error:
        raise from_validation(error) from None
    _refuse_twins(text, n_members(decoded))
    return decoded


def _refuse_twins(body: bytes, given: int) -> None:
    """Of two fields of one name the parser keeps the last: then fewer were given than there are. There are fewer too
    where the schema lets unknown fields pass.

    raises  InvalidRequest if an object of the body has two fields of one name
    """
    # Strings may hold colons too, but who finds no more than were given has seen all fields.
    if body.count(b":") != given and json_amounts(body).members != given:
        json.loads(body, object_pairs_hook=_once)


def _once(members: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        raise twice(next(name for name in names if names.count(name) > 1))


def encode(document: Any) -> bytes:
    return to_json(document)
