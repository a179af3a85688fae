"""Numbers as people write them: decimal commas, thousands, percent signs, currencies."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..arrays import Vector
from .settings import Decimal, question
from .table import Cell, Table

MISSING = frozenset(
    {"", "-", "--", "---", ".", "n/a", "na", "#n/a", "#na", "nan", "null", "none", "nil", "n.a.", "unch", "#n/a n/a"}
)
_GARNISH = re.compile(r"[\s\u00a0\u202f\u2009$€£¥₹]|(?<=\d)'(?=\d{3})|(?:USD|EUR|GBP|CHF|JPY)")
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+|[+-]?0,\d+|[+-]?\d+,(?:\d{1,2}|\d{4,})|[+-]?\d{4,},\d+|[+-]?,\d+")
_POINT = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+\.\d+|[+-]?0?\.\d+|[+-]?\d+\.(?:\d{1,2}|\d{4,})|[+-]?\d{4,}\.\d+|0\.\d+")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")

Mark = Literal["point", "comma"]


class Numbers(NamedTuple):
    """A column read as numbers."""

    values: Vector
    """(n_rows,), NaN where there is none."""
    unreadable: list[int]
    """Rows whose cell is something else."""


def stripped(text: str) -> str:
    return _GARNISH.sub("", text)


def is_missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, str) and cell.lower() in MISSING)


def decimal_mark(table: Table, columns: Iterable[int], said: Decimal | None) -> Mark:
    """What parts whole numbers from decimals in these columns of a table.

    raises  InvalidInput, asking for `decimal`, if numbers such as 1,234 may be read in two ways
    """
    if said is not None:
        return said
    cells = [
        stripped(cell).rstrip("%")
        for i in columns
        for cell in table.column(i)
        if isinstance(cell, str) and ("," in cell or "." in cell)
    ]
    commas = sum(1 for text in cells if _COMMA.fullmatch(text))
    points = sum(1 for text in cells if _POINT.fullmatch(text))
    if commas and not points:
        return "comma"
    if points and not commas:
        return "point"
    if commas and points:
        first = next(text for text in cells if _COMMA.fullmatch(text))
        second = next(text for text in cells if _POINT.fullmatch(text))
        raise question("decimal", f"must be point or comma, since {table.source} holds both {first} and {second}.")
    doubtful = next((text for text in cells if _GROUPED.fullmatch(text)), None)
    if doubtful is not None and not table.commas_separate:
        needed = f"must be point or comma, since nothing in {table.source} tells what {doubtful} is."
        raise question("decimal", needed)
    return "point"


def numbers_in(cells: Sequence[Cell], mark: Mark) -> Numbers:
    """Cells as numbers; a cell with a percent sign is a hundredth of its number."""
    values = np.full(len(cells), np.nan)
    unreadable = []
    for i, cell in enumerate(cells):
        if is_missing(cell):
            continue
        value = number_of(cell, mark)
        if value is None:
            unreadable.append(i)
        else:
            values[i] = value
    return Numbers(values, unreadable)


def number_of(cell: Cell, mark: Mark = "point") -> float | None:
    """One cell as a number; None if it is something else."""
    if isinstance(cell, int | float):
        return float(cell)
    if not isinstance(cell, str):
        return None
    if mark == "point" and _PLAIN.fullmatch(cell):
        return float(cell)
    text = stripped(cell)
    percent = text.endswith("%")
    text = text.rstrip("%")
    if mark == "comma":
        if not re.fullmatch(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+|)(?:,\d*)?(?:[eE][+-]?\d+)?", text):
            return None
        text = text.replace(".", "").replace(",", ".")
    elif "," in text:
        if not re.fullmatch(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?", text):
            return None
        text = text.replace(",", "")
    if not _PLAIN.fullmatch(text):
        return None
    return 0.01 * float(text) if percent else float(text)
