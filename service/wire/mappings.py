"""Documents that the library reads field by field: the body as a mapping."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from .formats import FORMATS


class _Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


def mapping_of(body: bytes, media_type: str) -> dict[str, Any]:
    """What a body says, in the format of that content type.

    raises  InvalidRequest if it is no object, or holds a field twice; TooLarge
    """
    decoded = FORMATS[media_type].decode(body, _Anything)
    # An empty object passes as a struct.
    return getattr(decoded, "model_extra", None) or {}
