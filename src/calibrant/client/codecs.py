"""The two encodings of one schema.

MessagePack is spoken by default. It carries the whole contract, which the tensors of the Open Inference Protocol do not
(bounds, priors, held parameters, bid and ask, both verdicts), and from array to array it is the fastest of the three:
what the tensors save in numbers their header costs twice. `python -m benchmarks.service wire` measures them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from .requests import plain
from .results import array_of

T = TypeVar("T")


@dataclass(frozen=True)
class Codec:
    media_type: str
    encode: Callable[[Any], bytes]
    decoder: Callable[[Any], Any]
    """Of a type; takes bytes."""

    def decode(self, body: bytes, into: type[T]) -> T:
        """raises  msgspec.DecodeError, UnicodeDecodeError"""
        value: T = self.decoder(into)(body)
        return value


@cache
def _msgpack(into: Any) -> Any:
    return msgspec.msgpack.Decoder(into, dec_hook=array_of).decode


@cache
def _json(into: Any) -> Any:
    return msgspec.json.Decoder(into, dec_hook=array_of).decode


MSGPACK: Final = Codec("application/msgpack", msgspec.msgpack.Encoder(enc_hook=plain).encode, _msgpack)
JSON: Final = Codec("application/json", msgspec.json.Encoder(enc_hook=plain).encode, _json)
CODECS: Final = {"msgpack": MSGPACK, "json": JSON}
