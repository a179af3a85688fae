"""The body of a batch, `{"panels": [...]}`, cut into its panels, which are decoded each for itself.

So a bad one fails alone, no more than one is in memory as Python objects, and the interpreter lock is never held for
longer than one takes.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from pydantic_core import from_json

from calibrant.errors import Problem

from ..errors import InvalidRequest, TooLarge
from .amounts import json_parts
from .formats import JSON, Format
from .json import MARK
from .quick import REFUSALS
from .schema import Request
from .validation import bad_body

_SMALL = 1 << 16
"""Bytes of a body that is no batch up to which it is told what is wrong: whatever it holds, that takes milliseconds."""
_HEAD_BYTES = 4096
_HEAD = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*("(?:[^"\\]|\\.)*")[ \t\n\r]*:[ \t\n\r]*')
"""Of an object, up to its first value."""
_TAIL = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*")
_BLANKS = re.compile(rb"[ \t\n\r]*")
_ONE_FIELD = (b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01")
"""How a map of one begins."""
_LIST_TAGS = bytes([*range(0x90, 0xA0), 0xDC, 0xDD])


class _Loose(Request):
    """A batch whose panels may be anything."""

    panels: list[Any]


class _Panels(Struct, forbid_unknown_fields=True):
    panels: Raw


_read = msgspec.msgpack.Decoder(_Panels).decode


def panels_of(body: memoryview, wire: Format, most: int) -> list[memoryview]:
    """raises  InvalidRequest if the body is no batch, TooLarge if it holds more than `most` panels"""
    panels = _json_panels(body, most) if wire is JSON else _msgpack_panels(body, most)
    if panels is None:
        if len(body) <= _SMALL:
            wire.decode(bytes(body), _Loose)
        raise bad_body("must be an object with one field, the list `panels`, that nests no deeper than any request.")
    if not panels:
        raise InvalidRequest([Problem.at(("panels",), "must hold at least one panel, but is empty.")])
    if len(panels) > most:
        raise TooLarge(f"`panels` must hold at most {most} panels, but holds more.")
    return panels


def _json_panels(body: memoryview, most: int) -> list[memoryview] | None:
    """The panels, or more of them than `most`; None if the body is no batch.

    Not by msgspec, which does not stop at too many, and has none where one is no JSON: Python's own library writes NaN.
    """
    text = body[len(MARK) if body[: len(MARK)] == MARK else 0 :]
    head = _HEAD.match(text[:_HEAD_BYTES])
    if head is None or not _is_panels(head[1]) or bytes(text[head.end() : head.end() + 1]) != b"[":
        return None
    panels, end = json_parts(text, head.end(), most)
    if end < 0 or (len(panels) <= most and not _TAIL.fullmatch(text, end)):
        return None
    return [] if len(panels) == 1 and _BLANKS.fullmatch(panels[0]) else panels


def _is_panels(name: bytes) -> bool:
    try:
        return bool(from_json(name) == "panels")
    except ValueError:
        return False


def _msgpack_panels(body: memoryview, most: int) -> list[memoryview] | None:
    """As `_json_panels`."""
    try:
        panels = memoryview(_read(body).panels)
    except REFUSALS:
        return None
    if not bytes(body[:5]).startswith(_ONE_FIELD) or panels[0] not in _LIST_TAGS:
        return None
    try:
        raws = msgspec.msgpack.decode(panels, type=Annotated[list[Raw], Meta(max_length=most)])
    except msgspec.ValidationError:
        return [panels] * (most + 1)
    return [memoryview(raw) for raw in raws]
