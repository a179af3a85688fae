"""Compressed bodies: inflated to the limit and not a byte further."""

import gzip
import tracemalloc
import zlib

import pytest

from service.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from service.wire.compression import answer_encoding, content_encoding, deflate, inflate

TEXT = bytes(range(256)) * 20
LIMIT = 1_000_000


def bare(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


COMPRESSED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "zlib": ("deflate", zlib.compress(TEXT)),
    "a bare stream": ("deflate", bare(TEXT)),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_body_is_inflated(name: str) -> None:
    encoding, body = COMPRESSED[name]
    assert inflate(body, encoding, LIMIT) == TEXT
    assert inflate(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_answer_inflates_to_itself(encoding: str) -> None:
    assert inflate(deflate(TEXT, encoding), encoding, LIMIT) == TEXT


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_body_that_is_cut_short_or_goes_on_is_refused(name: str) -> None:
    encoding, body = COMPRESSED[name]
    for wrong in (body[:-1], body[: len(body) // 2], body[:1], b""):
        with pytest.raises(InvalidRequest, match=f"{encoding}"):
            inflate(wrong, encoding, LIMIT)
    with pytest.raises(InvalidRequest, match="goes on after"):
        inflate(body + b"x", encoding, LIMIT)


def test_a_body_in_another_format_than_said_is_refused() -> None:
    for encoding, body in (("gzip", zlib.compress(TEXT)), ("deflate", gzip.compress(TEXT)), ("gzip", TEXT)):
        with pytest.raises(InvalidRequest, match=f"not in the format {encoding}"):
            inflate(body, encoding, LIMIT)


def test_the_limit_holds_to_the_byte() -> None:
    assert len(inflate(gzip.compress(bytes(LIMIT)), "gzip", LIMIT)) == LIMIT
    with pytest.raises(TooLarge):
        inflate(gzip.compress(bytes(LIMIT + 1)), "gzip", LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_takes_no_more_memory_than_the_limit(encoding: str) -> None:
    bomb = deflate(bytes(50_000_000), encoding)
    assert len(bomb) < LIMIT
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, encoding, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
    finally:
        tracemalloc.stop()


def test_encodings_are_read_from_headers() -> None:
    assert content_encoding({}) is None
    assert content_encoding({"content-encoding": "Identity"}) is None
    assert content_encoding({"content-encoding": "GZIP"}) == "gzip"
    for other in ("br", "zstd", "gzip, gzip", ""):
        with pytest.raises(UnsupportedMediaType) as refused:
            content_encoding({"content-encoding": other})
        assert refused.value.headers == {"accept-encoding": "gzip, deflate"}


def test_an_answer_is_compressed_where_that_alone_is_asked_for() -> None:
    assert answer_encoding({"accept-encoding": "gzip"}) == "gzip"
    assert answer_encoding({"accept-encoding": " deflate "}) == "deflate"
    for libraries_own in ("gzip, deflate, br", "gzip;q=0", "*", "br", ""):
        assert answer_encoding({"accept-encoding": libraries_own}) is None
