"""MessagePack: the schema of JSON in binary.

The values are those that JSON has too: no binary data, no extension types, no keys but strings. Null is a missing vol
and NaN is refused, as in JSON.
"""

from typing import TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from .amounts import MOST, Amounts, msgpack_amounts, require_modest
from .quick import REFUSALS, read
from .validation import bad_body, from_validation, n_members, twice

Body = TypeVar("Body", bound=BaseModel)

_decode = msgspec.msgpack.Decoder().decode
encode = msgspec.msgpack.Encoder().encode


def decode(body: bytes, into: type[Body], most: Amounts = MOST) -> Body:
    """raises  InvalidRequest with a pointer to every field that is not as the schema says, TooLarge"""
    amounts = msgpack_amounts(body)
    require_modest(amounts, most)
    decoded, given = read(body, into, binary=True) or _looked_at(body, into)
    # As in JSON. No schema that is read from MessagePack lets unknown fields pass.
    if given != amounts.members:
        raise twice()
    return decoded


def _looked_at(body: bytes, into: type[Body]) -> tuple[Body, int]:
    """What pydantic makes of a body that msgspec refuses, whose faults it names."""
    try:
        decoded = into.model_validate(_decode(body))
    except ValidationError as error:
        raise from_validation(error) from None
    except REFUSALS as error:
        raise bad_body(f"is not MessagePack: {error}.") from None
    return decoded, n_members(decoded)
