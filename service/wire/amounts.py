"""What a body holds, counted before anything is made of it, and where the panels of a JSON batch lie: compiled code.

Nothing that a body says of its own lengths is believed: a value takes at least one byte, so no more values than bytes
can follow.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from ..errors import TooLarge
from .validation import bad_body

Bytes = NDArray[np.uint8]

DEEPEST = 16
"""Levels of nesting at most: a batch has five."""


class Amounts(NamedTuple):
    """What costs time and memory to decode."""

    containers: int
    """Objects and lists."""
    members: int
    """Of all objects."""
    values: int
    """In all lists."""
    text: int
    """Bytes of all strings, keys included."""
    longest: int
    """Bytes of the longest number, or what stands for one; 0 in binary, where they need not be read."""


MOST = Amounts(containers=4096, members=256, values=100_000, text=131_072, longest=512)
"""What one request may hold. Decoding and judging it is one step of the interpreter, for which all others wait: 5 ms
for as many numbers of 16 digits, 16 ms for the worst found, but 4 MiB of unknown fields took 3.9 s, of empty lists
1.3 s and of nulls 0.07 s (measured). 12,500 quotes fit with all columns there are, 33,000 with three."""


def require_modest(amounts: Amounts, limits: Amounts = MOST) -> None:
    """Of a body, or a panel of a batch.

    raises  TooLarge if it holds more values than are decoded in one piece, InvalidRequest if it holds more of anything
            else than any request has
    """
    for found, most, unit in (
        (amounts.containers, limits.containers, "objects and lists"),
        (amounts.members, limits.members, "fields"),
        (amounts.text, limits.text, "bytes of text"),
        (amounts.longest, limits.longest, "characters in a number"),
    ):
        if found > most:
            raise bad_body(f"must have at most {most} {unit}, but has {found}.")
    if amounts.values > limits.values:
        raise TooLarge(f"The lists of a request must hold at most {limits.values} values, but hold {amounts.values}.")


def json_amounts(body: bytes) -> Amounts:
    """What a JSON body holds; of one that is none at least what a decoder meets before that shows."""
    return Amounts(*_json_amounts(_view(body)))


def msgpack_amounts(body: bytes) -> Amounts:
    """What a body holds that is one MessagePack value of the kinds that JSON has too.

    raises  InvalidRequest if it is none
    """
    containers, members, values, text, fault = _msgpack_amounts(_view(body))
    if fault:
        raise bad_body(f"is not MessagePack: {_FAULTS[fault]}.")
    return Amounts(containers, members, values, text, longest=0)


def json_parts(body: memoryview, begin: int, most: int) -> tuple[list[memoryview], int]:
    """What lies between the commas of the list whose bracket is at `begin`, and the place behind the other bracket.

    body     read-only
    returns  at least one part, which may be blank, and at most `most + 1`, which are then not all. Whether they are
             JSON is not judged: whoever decodes one finds out, and so a bad one fails alone. None, and -1, if the other
             bracket does not come, or brackets lie deeper than `DEEPEST`
    """
    spans = np.empty((most + 1, 2), np.int64)
    n, end = _json_parts(_view(body), begin, spans)
    return [body[first:last] for first, last in spans[:n].tolist()], end


_BYTE = np.dtype(np.uint8)
# Read-only, as `bytes` are. With the signature given, everything is compiled (or loaded) when the module is imported.
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_TWO = types.UniTuple(types.int64, 2)  # type: ignore[no-untyped-call]
_FIVE = types.UniTuple(types.int64, 5)  # type: ignore[no-untyped-call]


def _view(body: bytes | memoryview) -> Bytes:
    """Not copied."""
    view: Bytes = np.frombuffer(body, _BYTE)
    return view


def _kinds(*those: bytes) -> NDArray[np.uint8]:
    """For each byte which of `those` holds it, counted from 1; 0 if none does."""
    return np.array([next((i for i, some in enumerate(those, 1) if c in some), 0) for c in range(256)], np.uint8)


_QUOTE, _COMMA, _COLON, _OPENING, _CLOSING = range(1, 6)
_JSON = _kinds(b'"', b",", b":", b"[{", b"]}")


@njit(inline="always")
def _end_of_string(data: Bytes, i: int) -> int:
    """The place of the closing quote of the string that begins at i; behind the data if there is none."""
    i += 1
    while i < data.size and data[i] != 34:
        i += 2 if data[i] == 92 else 1
    return i


@njit([_FIVE(_BYTES)], cache=True, nogil=True)
def _json_amounts(data: Bytes) -> tuple[int, int, int, int, int]:
    """As `Amounts` says, a comma for each value. Whether it is JSON at all is not judged: whoever decodes it stops
    where it is not, and has met no more than this until then."""
    containers = members = values = text = longest = 0
    size = data.size
    i = number = 0
    while i < size:
        kind = _JSON[data[i]]
        if kind == 0 and data[i] > 32:
            i += 1
            continue
        longest = max(longest, i - number)
        if kind == _QUOTE:
            end = _end_of_string(data, i)
            text += min(end + 1, size) - i
            i = end
        elif kind == _OPENING:
            containers += 1
        elif kind == _COLON:
            members += 1
        elif kind == _COMMA:
            values += 1
        i += 1
        number = i
    return containers, members, values, text, max(longest, size - number)


@njit([_TWO(_BYTES, types.int64, types.int64[:, ::1])], cache=True, nogil=True)
def _json_parts(data: Bytes, i: int, spans: NDArray[np.int64]) -> tuple[int, int]:
    """How many parts lie between the bracket at i and its other one, and the place behind that; 0, -1 if there is none.

    spans  (n, 2), filled with the begin and end of each; once it is full, the rest is not looked for
    """
    size, most = data.size, spans.shape[0]
    n = depth = 0
    begin = i + 1
    while i < size:
        kind = _JSON[data[i]]
        if kind == 0:
            i += 1
            continue
        if kind == _QUOTE:
            i = _end_of_string(data, i)
        elif kind == _OPENING:
            depth += 1
            if depth > DEEPEST:
                break
        elif kind == _CLOSING or (kind == _COMMA and depth == 1):
            if depth == 1:
                spans[n, 0], spans[n, 1] = begin, i
                n += 1
                begin = i + 1
                if n == most or kind == _CLOSING:
                    return n, begin
            depth -= kind == _CLOSING
        i += 1
    return 0, -1


_TRUNCATED, _UNKNOWN, _BEHIND = range(1, 4)
_FAULTS = {
    _TRUNCATED: "it ends inside a value",
    _UNKNOWN: "it holds a value of a type that JSON does not have",
    _BEHIND: "it goes on behind its value",
}
_MAP, _LIST, _TEXT, _SCALAR = range(1, 5)
_MSGPACK = _kinds(
    bytes([*range(0x80, 0x90), 0xDE, 0xDF]),
    bytes([*range(0x90, 0xA0), 0xDC, 0xDD]),
    bytes([*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB]),
    bytes([*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xCA, 0xD4), *range(0xE0, 0x100)]),
)
# Behind the byte of the type: of a number itself, of anything else of its length.
_WIDTH = np.zeros(256, np.int64)
_WIDTH[[0xCA, 0xCB, *range(0xCC, 0xD0), *range(0xD0, 0xD4)]] = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8]
_WIDTH[[0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF]] = [1, 2, 4, 1, 2, 4, 2, 4, 2, 4]


@njit([_FIVE(_BYTES)], cache=True, nogil=True)
def _msgpack_amounts(data: Bytes) -> tuple[int, int, int, int, int]:
    """As `Amounts` says, and a fault for the longest number.

    How values nest need not be known to pass over them: each says how many more must follow.
    """
    size = data.size
    containers = members = values = text = i = 0
    due = 1
    while due > 0:
        if due > size - i:
            return containers, members, values, text, _TRUNCATED
        due -= 1
        tag = int(data[i])
        kind, width = _MSGPACK[tag], _WIDTH[tag]
        begin = i
        i += 1 + width
        if kind == _SCALAR:
            continue
        if kind == 0:
            return containers, members, values, text, _UNKNOWN
        length = tag & (31 if kind == _TEXT else 15) if width == 0 else 0
        for j in range(begin + 1, min(i, size)):
            length = 256 * length + data[j]
        if kind == _TEXT:
            i += length
            text += i - begin
        elif kind == _LIST:
            containers += 1
            values += length
            due += length
        else:
            containers += 1
            members += length
            due += 2 * length
    fault = _TRUNCATED if i > size else _BEHIND if i < size else 0
    return containers, members, values, text, fault
