"""The formats that requests and answers may be in, and which of them a request uses and asks for."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from calibrant.errors import shown

from ..errors import UnsupportedMediaType
from ..headers import decimal_number
from . import json, msgpack
from .amounts import MOST, Amounts

Body = TypeVar("Body", bound=BaseModel)


class Decoder(Protocol):
    def __call__(self, body: bytes, into: type[Body], most: Amounts = MOST) -> Body: ...


@dataclass(frozen=True)
class Format:
    """A way to write the documents that `schema` describes."""

    media_type: str
    decode: Decoder
    encode: Callable[[Any], bytes]


JSON = Format("application/json", json.decode, json.encode)
MSGPACK = Format("application/msgpack", msgpack.decode, msgpack.encode)
FORMATS: Mapping[str, Format] = {each.media_type: each for each in (JSON, MSGPACK)}
_OTHER_NAMES = {"application/x-msgpack": MSGPACK.media_type, "application/vnd.msgpack": MSGPACK.media_type}
"""Which name is meant where a format goes by several."""


def request_format(headers: Mapping[str, str]) -> Format:
    """The format of a body.

    raises  UnsupportedMediaType if the headers name another, or none, or say that the body is compressed
    """
    require_plain(headers)
    return FORMATS[require_media_type(headers, FORMATS)]


def answer_format(headers: Mapping[str, str], default: Format = JSON) -> Format:
    """The format to answer in: what `Accept` asks for, by default that of the request."""
    return FORMATS[preferred(headers.get("accept", ""), (default.media_type, *FORMATS))]


def require_media_type(headers: Mapping[str, str], known: Collection[str]) -> str:
    """The media type of a body, without its parameters.

    raises  UnsupportedMediaType if it is not among the known ones
    """
    given = headers.get("content-type", "")
    if given in known:
        return given
    media_type = given.partition(";")[0].strip().lower()
    media_type = _OTHER_NAMES.get(media_type, media_type)
    if media_type not in known:
        detail = f"The Content-Type must be {_alternatives(known)}, but is {shown(given) or 'absent'!r}."
        raise UnsupportedMediaType(detail, headers={"accept": ", ".join(known)})
    return media_type


def require_plain(headers: Mapping[str, str]) -> None:
    """raises  UnsupportedMediaType if the body is compressed."""
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        detail = f"The Content-Encoding must be identity, but is {shown(encoding)!r}."
        raise UnsupportedMediaType(detail, headers={"accept-encoding": "identity"})


def preferred(accept: str, offered: Sequence[str]) -> str:
    """Of the media types offered the one that `Accept` ranks highest, of equals the first.

    Where it names none of them the first too: an answer in another format than asked for is of more use than none, and
    RFC 9110 (12.5.1) leaves the choice.
    """
    if accept in ("", "*/*") or accept == offered[0]:
        return offered[0]
    quality: dict[str, float] = {}
    for item in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        named = _OTHER_NAMES.get(media_range, media_range)
        quality[named] = next((_quality(p[2:]) for p in parameters if p.startswith("q=")), 1.0)

    def rank(media_type: str) -> float:
        for media_range in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
            if media_range in quality:
                return quality[media_range]
        return 0.0

    return max(offered, key=rank)


def _quality(value: str) -> float:
    quality = decimal_number(value)
    return quality if quality is not None and quality <= 1.0 else 0.0


def _alternatives(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
