"""MessagePack: the schema of JSON in binary.

The values are those that JSON has too: no binary data, no extension types, no keys but strings. Null is a missing vol
and NaN is refused, as in JSON.
"""

from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from . import spans
from .validation import bad_body, from_validation, n_members, require_modest, twice

Body = TypeVar("Body", bound=BaseModel)

_decode = msgspec.msgpack.Decoder().decode
encode = msgspec.msgpack.Encoder().encode


def decode(body: bytes, into: type[Body]) -> Body:
    """raises  InvalidRequest with a pointer to every field that is not as the schema says, TooLarge"""
    try:
        amounts = spans.msgpack_amounts(spans.view(body))
        require_modest(amounts)
        value: Any = _decode(body)
    except (spans.SpanError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_body(f"is not MessagePack: {error}.") from None
    try:
        decoded = into.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from None
    # As in JSON. No schema that is read from MessagePack lets unknown fields pass.
    if n_members(decoded) != amounts.members:
        raise twice()
    return decoded
