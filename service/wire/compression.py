"""Compressed bodies of the Open Inference Protocol: inflated to the size limit and not a byte further."""

import gzip
import zlib
from collections.abc import Mapping

from calibrant.errors import shown

from ..errors import TooLarge, UnsupportedMediaType
from .validation import bad_body

GZIP, DEFLATE = "gzip", "deflate"
ENCODINGS = (GZIP, DEFLATE)

_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15


def content_encoding(headers: Mapping[str, str]) -> str | None:
    """How a body is compressed; None if it is not.

    raises  UnsupportedMediaType if that is neither gzip nor deflate
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return None
    if encoding not in ENCODINGS:
        detail = f"The Content-Encoding must be gzip, deflate or identity, but is {shown(encoding)!r}."
        raise UnsupportedMediaType(detail, headers={"accept-encoding": ", ".join(ENCODINGS)})
    return encoding


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A body that was compressed.

    raises  TooLarge at the first byte beyond the limit, InvalidRequest if the body is not what the header says
    """
    bits = _GZIP_BITS if encoding == GZIP else _ZLIB_BITS if _is_zlib(body) else _RAW_BITS
    stream = zlib.decompressobj(bits)
    try:
        inflated = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise bad_body(f"is not in the format {encoding} that its Content-Encoding says: {error}.") from None
    if len(inflated) > max_bytes:
        raise TooLarge(f"The body must have at most {max_bytes} bytes once inflated, but has more.")
    if not stream.eof:
        raise bad_body(f"ends inside its compressed data ({encoding}).")
    if stream.unused_data:
        raise bad_body(f"goes on after its compressed data ({encoding}).")
    return inflated


def _is_zlib(body: bytes) -> bool:
    """`deflate` means zlib's format (RFC 9110, 8.4.1.2), but some clients send the bare stream."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0


def answer_encoding(headers: Mapping[str, str]) -> str | None:
    """The encoding that a client wants its answer in, if it asks for one and no other.

    A list is what HTTP libraries send by themselves: half a kilobyte gains nothing from being compressed then.
    """
    accepted = headers.get("accept-encoding", "").strip().lower()
    return accepted if accepted in ENCODINGS else None


def deflate(body: bytes, encoding: str) -> bytes:
    return gzip.compress(body, mtime=0) if encoding == GZIP else zlib.compress(body)
