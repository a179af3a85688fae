"""Chains of quotes as they come over the wire, to the tables that the library's intake reads."""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calibrant.errors import InvalidInput, Problem
from calibrant.intake.documents import tables_of
from calibrant.intake.settings import NUMBERS, Settings, settings_of
from calibrant.intake.sources import tables_of_bytes
from calibrant.intake.table import Table

from ..errors import TooLarge
from . import schema
from .amounts import MOST
from .formats import FORMATS, JSON, Format

MOST_OF_A_CHAIN = MOST._replace(text=2 << 20)
"""A chain has dates and the names of options, and is read beside the lane of those in a hurry."""
_LARGEST_UNPACKED = 8 << 20
"""Bytes of a workbook or a Parquet file, which may be packed a thousand to one."""
_PER_BYTE, _PER_CELL, _PER_ROW, _PER_BYTE_UNPACKED = 10, 130, 400, 16
"""Bytes of memory: cells become objects of Python's, and quotes that are left out have a reason in the answer."""
_PACKED = (b"PK\x03\x04", b"PAR1")
_THE_BODY = "the body"


def chain_in(body: bytes, media_type: str, asked: Mapping[str, str]) -> tuple[Callable[[], Sequence[Table]], Settings]:
    """What reads the tables of a request, and its settings.

    asked   parameters of the query
    raises  InvalidInput for a setting that is none, TooLarge, and as the decoders of `formats`
    """
    settings = settings_of({name: _setting(name, value) for name, value in asked.items()})
    if media_type in FORMATS:
        document = _document(body, FORMATS[media_type])
        return lambda: _tables(document), settings
    _require_unpacked(body)
    return lambda: tables_of_bytes(body, _THE_BODY, settings.sheet), settings


def memory_of(body: bytes, media_type: str) -> int:
    """Bytes that a chain takes at most until it is answered, whatever is in it.

    Measured in `tests/service/test_panel.py`.
    """
    if body.startswith(_PACKED):
        return _PER_BYTE_UNPACKED * _LARGEST_UNPACKED
    if media_type in FORMATS:
        # By the least that a cell takes: a byte, and in JSON a comma.
        cells = body.count(b",") if media_type == JSON.media_type else min(len(body), MOST_OF_A_CHAIN.values)
        rows = cells // 2
    else:
        cells = sum(map(body.count, (b",", b";", b"\t", b"|", b" ")))
        rows = body.count(b"\n") + body.count(b"\r")
    return _PER_BYTE * len(body) + _PER_CELL * cells + _PER_ROW * rows


def _document(body: bytes, body_format: Format) -> dict[str, Any]:
    request = body_format.decode(body, schema.PanelRequest, MOST_OF_A_CHAIN)
    named = {name: getattr(request, name) for name in schema.PanelRequest.model_fields}
    return {name: value for name, value in named.items() if value is not None}


def _tables(document: Mapping[str, Any]) -> Sequence[Table]:
    found = tables_of(document, _THE_BODY)
    if not found:
        needed = "must be given, or columns by delta (`tenor`, `atm`, `rr25`, `bf25`, ...), but neither is."
        raise InvalidInput(Problem.at(("quotes",), needed))
    return found


def _setting(name: str, value: str) -> object:
    if name in NUMBERS:
        try:
            return float(value)
        except ValueError:
            return value
    if name == "holidays":
        return [each.strip() for each in value.split(",") if each.strip()]
    if name in ("columns", "convention"):
        return dict(pair.partition("=")[::2] for pair in value.split(","))
    return value


def _require_unpacked(body: bytes) -> None:
    """raises  TooLarge"""
    size = len(body)
    if body.startswith(_PACKED[0]):
        try:
            size = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(body)).infolist())
        except (zipfile.BadZipFile, ValueError):
            # Which its reader will say.
            return
    elif body.startswith(_PACKED[1]):
        from pyarrow import ArrowException, parquet

        try:
            found = parquet.read_metadata(io.BytesIO(body))
            size = sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
            size = max(size, 8 * found.num_rows * found.num_columns)
        except (ArrowException, OSError):
            return
    if size > _LARGEST_UNPACKED:
        raise TooLarge(f"A file must have at most {_LARGEST_UNPACKED} bytes unpacked, but has {size}.")
