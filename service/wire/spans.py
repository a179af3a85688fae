"""Where the parts of a body lie: found in compiled code before anything is built from it.

A batch is cut into its panels here, so that each is decoded for itself: a bad one fails alone, no more than one is in
memory as Python objects, and the interpreter lock is never held for longer than one panel takes. Nothing that a body
says of its own lengths is believed: a value takes at least one byte, so no more values than bytes can follow.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from . import marks

Bytes = NDArray[np.uint8]
Span = tuple[int, int]

DEEPEST = 16
"""Levels of nesting at most: a batch has five."""

MARK = b"\xef\xbb\xbf"
"""UTF-8's byte-order mark, with which some begin JSON: to be passed over (RFC 8259, 8.1)."""

SOUND, TRUNCATED, DEEP, NO_KEY, UNKNOWN, MISPLACED, OTHER_KIND = range(7)
FAULTS = {
    TRUNCATED: "it ends inside a value",
    DEEP: f"it nests deeper than {DEEPEST} levels",
    NO_KEY: "it has a key that is not a string",
    UNKNOWN: "it holds a value of a type that JSON does not have",
    MISPLACED: "a value, a comma or a bracket is missing or out of place",
}

_BYTE = np.dtype(np.uint8)
# Read-only, as `bytes` are. With the signature given, everything is compiled (or loaded) when the module is imported.
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_SPANS = types.Array(types.int64, 2, "C")
_COUNTS = types.Array(types.int64, 1, "C")
_TWO = types.UniTuple(types.int64, 2)  # type: ignore[no-untyped-call]
_THREE = types.UniTuple(types.int64, 3)  # type: ignore[no-untyped-call]
_FIVE = types.UniTuple(types.int64, 5)  # type: ignore[no-untyped-call]


class SpanError(ValueError):
    """A body that cannot be cut, with the byte at which that shows."""

    def __init__(self, fault: int, position: int) -> None:
        super().__init__(f"{FAULTS[fault]} (at byte {position})")


class Amounts(NamedTuple):
    """What a body holds of that which costs time and memory to decode."""

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


class OtherKind(ValueError):
    """A value that is no object, or no list."""


class TooManyParts(ValueError):
    """More elements than asked for."""


class Parts(NamedTuple):
    """The spans of what an object or a list holds."""

    keys: list[Span]
    """Empty for a list."""
    values: list[Span]


def view(body: bytes | memoryview) -> Bytes:
    """The bytes as the kernels want them, not copied; a memoryview must be read-only."""
    array: Bytes = np.frombuffer(body, _BYTE)
    return array


# JSON -----------------------------------------------------------------------------------------------------------------


@njit([types.int64(_BYTES, types.int64)], cache=True, nogil=True)
def _after_blanks(data: Bytes, i: int) -> int:
    while i < data.size and (data[i] == 32 or data[i] == 10 or data[i] == 13 or data[i] == 9):
        i += 1
    return i


@njit([types.int64(_BYTES, types.int64)], cache=True, nogil=True)
def _after_string(data: Bytes, i: int) -> int:
    """The place after the closing quote of the string that begins at i; beyond the data if there is none."""
    i += 1
    while i < data.size and data[i] != 34:
        i += 2 if data[i] == 92 else 1
    return i + 1


@njit([_TWO(_BYTES, types.int64)], cache=True, nogil=True)
def _after_json(data: Bytes, i: int) -> tuple[int, int]:
    """The place after the value that begins at i, and its fault. What lies between its brackets is not judged."""
    size = data.size
    if i >= size:
        return i, TRUNCATED
    c = data[i]
    if c == 34:
        i = _after_string(data, i)
        return (i, SOUND) if i <= size else (size, TRUNCATED)
    if c != 91 and c != 123:
        begin = i
        while i < size and not (c == 44 or c == 93 or c == 125 or c == 58 or c <= 32):
            i += 1
            if i < size:
                c = data[i]
        return (i, SOUND) if i > begin else (i, MISPLACED)
    depth = 0
    while i < size:
        c = data[i]
        if c == 34:
            i = _after_string(data, i)
            continue
        i += 1
        if c == 91 or c == 123:
            depth += 1
            if depth > DEEPEST:
                return i, DEEP
        elif c == 93 or c == 125:
            depth -= 1
            if depth == 0:
                return i, SOUND
    return size, TRUNCATED


@njit([_THREE(_BYTES, types.int64, types.boolean, _SPANS)], cache=True, nogil=True)
def _json_parts(data: Bytes, i: int, keyed: bool, out: NDArray[np.int64]) -> tuple[int, int, int]:
    """What the object (or, if not `keyed`, the list) at i holds.

    out      (n, 4), filled: begin and end of each key and of each value
    returns  the number of parts, at most n + 1 (then there are more than fit); the place after the closing bracket, or
             of the fault; the fault
    """
    opening, closing = (123, 125) if keyed else (91, 93)
    if i >= data.size:
        return 0, i, TRUNCATED
    if data[i] != opening:
        return 0, i, OTHER_KIND
    i = _after_blanks(data, i + 1)
    if i < data.size and data[i] == closing:
        return 0, i + 1, SOUND
    n = 0
    while i < data.size:
        if n == out.shape[0]:
            return n + 1, i, SOUND
        if keyed:
            if data[i] != 34:
                return n, i, NO_KEY
            out[n, 0] = i
            i = _after_string(data, i)
            out[n, 1] = i
            i = _after_blanks(data, i)
            if i >= data.size:
                return n, data.size, TRUNCATED
            if data[i] != 58:
                return n, i, MISPLACED
            i = _after_blanks(data, i + 1)
        out[n, 2] = i
        i, fault = _after_json(data, i)
        if fault != SOUND:
            return n, i, fault
        out[n, 3] = i
        n += 1
        i = _after_blanks(data, i)
        if i >= data.size:
            break
        if data[i] == closing:
            return n, i + 1, SOUND
        if data[i] != 44:
            return n, i, MISPLACED
        i = _after_blanks(data, i + 1)
    return n, data.size, TRUNCATED


@njit([_TWO(types.int64, types.int64, types.int64, types.int64)], cache=True, nogil=True)
def _unescaped(quotes: int, escapes: int, inside: int, skipped: int) -> tuple[int, int]:
    """Of a block of bytes (see `marks`) the quotes that begin or end a string, and whether its last byte escapes the
    one after it; `inside` and `skipped` say whether its first byte is in a string (-1 if so, else 0), and escaped."""
    left = (quotes | escapes) & ~skipped
    skipped = ends = 0
    while left != 0:
        lowest = left & -left
        left ^= lowest
        if quotes & lowest != 0:
            ends |= lowest
            inside = ~inside
        elif inside != 0:
            left &= ~(lowest << 1)
            skipped = 1 if lowest < 0 else 0
    return ends, skipped


@njit([_FIVE(_BYTES)], cache=True, nogil=True)
def _json_amounts(data: Bytes) -> tuple[int, int, int, int, int]:
    """As `Amounts` says. Whether it is JSON at all is not judged: whoever decodes it stops where it is not, and has met
    no more than this until then."""
    containers = members = values = text = longest = 0
    size = data.size
    inside = skipped = in_number = begin = 0
    for i in range(0, size, marks.WIDTH):
        if size - i >= marks.WIDTH:
            breaks, quotes, escapes, commas, colons, openings = marks.json_marks(data, i)
            there = -1
        else:
            # Zeros behind the end belong to nothing.
            last = np.zeros(marks.WIDTH, np.uint8)
            for j in range(i, size):
                last[j - i] = data[j]
            breaks, quotes, escapes, commas, colons, openings = marks.json_marks(last, 0)
            there = (1 << (size - i)) - 1
        if (quotes | inside) != 0:
            if (escapes | skipped) != 0:
                quotes, skipped = _unescaped(quotes, escapes, inside, skipped)
            # Every byte from a quote on is flipped by it: those of strings, but for the quote at the end, remain.
            within = quotes
            for shift in (1, 2, 4, 8, 16, 32):
                within ^= within << shift
            within ^= inside
            inside = within >> 63
            text += marks.n_set((within | quotes) & there)
            commas &= ~within
            colons &= ~within
            openings &= ~within
            breaks |= within
        values += marks.n_set(commas)
        members += marks.n_set(colons)
        containers += marks.n_set(openings)
        numbers = ~breaks
        # Where numbers begin, and where they end: behind their last byte. Of one from the block before there is no
        # beginning, and of one that goes on in the next no end.
        begins = numbers & ~(numbers << 1 | in_number)
        ends = ~numbers & (numbers << 1 | in_number)
        while ends != 0:
            if in_number == 0:
                begin = i + marks.first_set(begins)
                begins &= begins - 1
            in_number = 0
            longest = max(longest, i + marks.first_set(ends) - begin)
            ends &= ends - 1
        if begins != 0:
            begin = i + marks.first_set(begins)
            in_number = 1
    return containers, members, values, text, max(longest, (size - begin) * in_number)


# MessagePack ----------------------------------------------------------------------------------------------------------


@njit([types.int64(_BYTES, types.int64, types.int64)], cache=True, nogil=True)
def _big_endian(data: Bytes, i: int, width: int) -> int:
    """The unsigned number of `width` bytes at i; -1 if the data ends before."""
    if i + width > data.size:
        return -1
    value = 0
    for j in range(width):
        value = value * 256 + data[i + j]
    return value


@njit([_THREE(_BYTES, types.int64)], cache=True, nogil=True)
def _container(data: Bytes, i: int) -> tuple[int, int, int]:
    """Of the list or map at i: the place of its first item, the number of its items (of a map its keys and values both
    count; -1 if the data ends before it is said), and 1 for a map, 0 for a list, -1 for anything else."""
    tag = data[i]
    if 0x80 <= tag <= 0x8F:
        return i + 1, 2 * (tag & 15), 1
    if 0x90 <= tag <= 0x9F:
        return i + 1, tag & 15, 0
    if tag == 0xDC or tag == 0xDD:
        width = 2 if tag == 0xDC else 4
        return i + 1 + width, _big_endian(data, i + 1, width), 0
    if tag == 0xDE or tag == 0xDF:
        width = 2 if tag == 0xDE else 4
        n = _big_endian(data, i + 1, width)
        return i + 1 + width, n if n < 0 else 2 * n, 1
    return i, 0, -1


@njit([_TWO(_BYTES, types.int64)], cache=True, nogil=True)
def _after_scalar(data: Bytes, i: int) -> tuple[int, int]:
    """The place after the value at i, which is no list and no map, and its fault."""
    tag = data[i]
    if tag <= 0x7F or tag >= 0xE0 or tag == 0xC0 or tag == 0xC2 or tag == 0xC3:
        return i + 1, SOUND
    if 0xA0 <= tag <= 0xBF:
        i += 1 + (tag & 31)
    elif 0xC4 <= tag <= 0xC6 or 0xD9 <= tag <= 0xDB:
        # Binary data and strings, their length in 1, 2 or 4 bytes.
        width = 1 << (tag - (0xC4 if tag <= 0xC6 else 0xD9))
        length = _big_endian(data, i + 1, width)
        if length < 0:
            return data.size, TRUNCATED
        i += 1 + width + length
    elif tag == 0xCA or tag == 0xCB:
        i += 5 if tag == 0xCA else 9
    elif 0xCC <= tag <= 0xCF:
        i += 1 + (1 << (tag - 0xCC))
    elif 0xD0 <= tag <= 0xD3:
        i += 1 + (1 << (tag - 0xD0))
    else:
        return i, UNKNOWN
    return (i, SOUND) if i <= data.size else (data.size, TRUNCATED)


@njit([_TWO(_BYTES, types.int64, _COUNTS)], cache=True, nogil=True)
def _after_msgpack(data: Bytes, i: int, out: NDArray[np.int64]) -> tuple[int, int]:
    """The place after the value at i, and its fault; what it holds is added to `out`, as `Amounts` says."""
    left = np.zeros(DEEPEST + 1, np.int64)
    keyed = np.zeros(DEEPEST + 1, np.int64)
    depth = 0
    left[0] = 1
    while True:
        while left[depth] == 0:
            if depth == 0:
                return i, SOUND
            depth -= 1
        if keyed[depth] == 0:
            # A column of float64, which is what most bytes belong to.
            while left[depth] > 0 and i < data.size and data[i] == 0xCB:
                left[depth] -= 1
                i += 9
            if left[depth] == 0 and i <= data.size:
                continue
        if i >= data.size:
            return data.size, TRUNCATED
        tag = data[i]
        # Of a map's items every second one is a key, and the last is a value.
        if keyed[depth] == 1 and left[depth] % 2 == 0 and not (0xA0 <= tag <= 0xBF or 0xD9 <= tag <= 0xDB):
            return i, NO_KEY
        left[depth] -= 1
        first, n_items, kind = _container(data, i)
        if kind < 0:
            begin = i
            i, fault = _after_scalar(data, i)
            if fault != SOUND:
                return i, fault
            if 0xA0 <= tag <= 0xBF or 0xC4 <= tag <= 0xC6 or 0xD9 <= tag <= 0xDB:
                out[3] += i - begin
            continue
        if n_items < 0 or n_items > data.size - first:
            return data.size, TRUNCATED
        if depth == DEEPEST:
            return i, DEEP
        out[0] += 1
        out[2 - kind] += n_items if kind == 0 else n_items // 2
        depth += 1
        left[depth] = n_items
        keyed[depth] = kind
        i = first


@njit([_THREE(_BYTES, types.int64, types.boolean, _SPANS)], cache=True, nogil=True)
def _msgpack_parts(data: Bytes, i: int, keyed: bool, out: NDArray[np.int64]) -> tuple[int, int, int]:
    """As `_json_parts`."""
    if i >= data.size:
        return 0, i, TRUNCATED
    first, n_items, kind = _container(data, i)
    if kind != (1 if keyed else 0):
        return 0, i, OTHER_KIND
    if n_items < 0 or n_items > data.size - first:
        return 0, data.size, TRUNCATED
    n_parts = n_items // 2 if keyed else n_items
    if n_parts > out.shape[0]:
        return out.shape[0] + 1, i, SOUND
    i = first
    # Whoever decodes a part looks at what it holds.
    unused = np.zeros(5, np.int64)
    for n in range(n_parts):
        if keyed:
            out[n, 0] = i
            if not (i < data.size and (0xA0 <= data[i] <= 0xBF or 0xD9 <= data[i] <= 0xDB)):
                return n, i, NO_KEY
            i, fault = _after_scalar(data, i)
            if fault != SOUND:
                return n, i, fault
            out[n, 1] = i
        out[n, 2] = i
        i, fault = _after_msgpack(data, i, unused)
        if fault != SOUND:
            return n, i, fault
        out[n, 3] = i
    return n_parts, i, SOUND


# What the other modules call ------------------------------------------------------------------------------------------

_PartsKernel = Callable[[Bytes, int, bool, NDArray[np.int64]], tuple[int, int, int]]


def _parts(kernel: _PartsKernel, data: Bytes, begin: int, keyed: bool, most: int) -> tuple[Parts, int]:
    out = np.empty((min(most, 1024), 4), np.int64)
    while True:
        n, end, fault = kernel(data, begin, keyed, out)
        if fault == OTHER_KIND:
            raise OtherKind
        if fault != SOUND:
            raise SpanError(fault, end)
        if n <= out.shape[0]:
            break
        if out.shape[0] == most:
            raise TooManyParts
        out = np.empty((min(most, 8 * out.shape[0]), 4), np.int64)
    keys = [(a, b) for a, b in out[:n, :2].tolist()] if keyed else []
    return Parts(keys, [(a, b) for a, b in out[:n, 2:].tolist()]), end


def json_object(data: Bytes, most: int) -> Parts:
    """The keys, with their quotes, and the values of the object that a JSON body is.

    raises  OtherKind if it is none, SpanError if it has no end or something follows, TooManyParts
    """
    begin = len(MARK) if data[: len(MARK)].tobytes() == MARK else 0
    parts, end = _parts(_json_parts, data, _after_blanks(data, begin), True, most)
    end = _after_blanks(data, end)
    if end != data.size:
        raise SpanError(MISPLACED, end)
    return parts


def json_list(data: Bytes, begin: int, most: int) -> list[Span]:
    """The elements of the JSON list that begins at a byte.

    raises  OtherKind if there is none, SpanError, TooManyParts
    """
    return _parts(_json_parts, data, begin, False, most)[0].values


def msgpack_object(data: Bytes, most: int) -> Parts:
    """As `json_object`, of a MessagePack map; its keys are encoded strings."""
    parts, end = _parts(_msgpack_parts, data, 0, True, most)
    if end != data.size:
        raise SpanError(MISPLACED, end)
    return parts


def msgpack_list(data: Bytes, begin: int, most: int) -> list[Span]:
    """As `json_list`."""
    return _parts(_msgpack_parts, data, begin, False, most)[0].values


def json_amounts(data: Bytes) -> Amounts:
    """What a JSON body holds; of one that is none at least what a decoder meets before that shows."""
    return Amounts(*_json_amounts(data))


def msgpack_amounts(data: Bytes) -> Amounts:
    """What a body holds that is one MessagePack value of the kinds that JSON has too.

    raises  SpanError if it is none
    """
    counts = np.zeros(5, np.int64)
    end, fault = _after_msgpack(data, 0, counts) if data.size else (0, TRUNCATED)
    if fault == SOUND and end != data.size:
        fault = MISPLACED
    if fault != SOUND:
        raise SpanError(fault, end)
    return Amounts(*counts.tolist())
