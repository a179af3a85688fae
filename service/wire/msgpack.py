"""MessagePack: the schema of JSON in binary.

The values are those that JSON has too: no binary data, no extension types, no keys but strings. Null is a missing vol
and NaN is refused, as in JSON.
"""

from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from . import spans
from .validation import bad_body, from_validation

Body = TypeVar("Body", bound=BaseModel)

MOST_CONTAINERS = 256
"""Objects and lists of one request; the largest has some forty. An empty one takes a byte in the body and sixty in
memory, so they are counted before any is made."""

_decode = msgspec.msgpack.Decoder().decode
encode = msgspec.msgpack.Encoder().encode


def decode(body: bytes, into: type[Body]) -> Body:
    """raises  InvalidRequest with a pointer to every field that is not as the schema says."""
    try:
        spans.check_msgpack(spans.view(body), MOST_CONTAINERS)
        value: Any = _decode(body)
    except (spans.SpanError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_body(f"is not MessagePack: {error}.") from None
    try:
        return into.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from None
