"""Requests read by msgspec, in half the time that pydantic takes: each model of `schema` as the struct that it is.

A struct has the fields of its model, and so stands for it wherever fields are all that is asked for. What msgspec
refuses it says too little of, so whoever gets nothing from here has pydantic name every fault.
"""

import sys
from collections.abc import Callable
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import astuple
from pydantic import BaseModel

Body = TypeVar("Body", bound=BaseModel)

_LARGEST = sys.float_info.max
_LIMITS = ("gt", "ge", "lt", "le", "min_length")
REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises of a body that is not as it should be."""

_DEFAULTS: dict[type[Struct], tuple[tuple[str, Any], ...]] = {}
"""Of each field of each struct made here."""


def read(body: bytes, into: type[Body], *, binary: bool) -> tuple[Body, int] | None:
    """What a body of JSON, or if `binary` MessagePack, says, and the number of fields that it gives.

    Of several fields of one name the last counts. None if msgspec refuses the body.
    """
    try:
        found: Any = _decoder(into, binary)(body)
    except REFUSALS:
        return None
    return found, _completed(found)


def _completed(found: Struct) -> int:
    """Give the fields that are absent their defaults; the number of the others, here and below."""
    given = 0
    for value, (name, default) in zip(astuple(found), _DEFAULTS[type(found)], strict=True):
        if value is UNSET:
            setattr(found, name, default)
            continue
        given += 1
        kind = type(value)
        if kind is dict:
            given += len(value)
        elif kind in _DEFAULTS:
            given += _completed(value)
    return given


@cache
def _decoder(model: type[BaseModel], binary: bool) -> Callable[[bytes], Struct]:
    # JSON has no numbers but finite ones.
    struct = _struct(model, finite=binary)
    return (msgspec.msgpack.Decoder(struct) if binary else msgspec.json.Decoder(struct)).decode


@cache
def _struct(model: type[BaseModel], finite: bool) -> type[Struct]:
    """`finite` has it refuse all other numbers."""
    fields: list[Any] = []
    for name, field in model.model_fields.items():
        kind = _plain(Annotated[(field.annotation, None, *field.metadata)], finite, {})
        fields.append((name, kind) if field.is_required() else (name, kind | UnsetType, UNSET))
    struct = msgspec.defstruct(model.__name__, fields, kw_only=True, forbid_unknown_fields=True)
    _DEFAULTS[struct] = tuple((name, field.get_default()) for name, field in model.model_fields.items())
    return struct


def _plain(kind: Any, finite: bool, limits: dict[str, Any]) -> Any:
    """The type of a pydantic field as msgspec has it, which knows the same limits by the same names."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner, *notes = arguments
        notes += [each for note in notes for each in getattr(note, "metadata", ())]
        found = {name: getattr(note, name) for note in notes for name in _LIMITS if hasattr(note, name)}
        return _plain(inner, finite, limits | found)
    if origin in (Union, UnionType):
        return reduce(or_, (_plain(each, finite, limits) for each in arguments))
    if kind is float and finite:
        limits = ({} if "gt" in limits else {"ge": -_LARGEST}) | {"le": _LARGEST} | limits
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _struct(kind, finite)
    if origin in (list, dict, tuple):
        kind = origin[tuple(_plain(each, finite, {}) for each in arguments)]
    return Annotated[kind, Meta(**limits)] if limits and kind is not type(None) else kind
