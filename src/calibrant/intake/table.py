"""A table as it was found in a file: names, cells and where they stood, nothing understood yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeAlias

from ..errors import Problem

Cell: TypeAlias = str | float | date | datetime | None
"""As the file holds it: text is stripped, and empty text is None."""


@dataclass(frozen=True, kw_only=True)
class Table:
    source: str
    """Name of the file, for messages."""
    names: Sequence[str]
    """Of the columns, as written; may repeat."""
    rows: Sequence[Sequence[Cell]]
    """As many cells each as there are names."""
    lines: Sequence[int]
    """Of each row in the file, from 1."""
    above: Sequence[str] = ()
    """What stood above the header."""
    skipped: Sequence[int] = ()
    """Lines below the header that are no rows: footnotes."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """What was said once for all rows, by the names of `Settings`."""
    commas_separate: bool = False
    """Whether cells were told apart by commas, so that a comma inside of one is no decimal mark."""

    of_body: bool = False
    """Whether it was JSON: then a row is a position in a column, and not a line."""

    def column(self, index: int) -> list[Cell]:
        return [row[index] for row in self.rows]

    def problem(self, row: int, name: str, needed: str) -> Problem:
        """What is wrong with one cell."""
        if self.of_body:
            return Problem.at(("quotes", name, row), needed)
        line = self.lines[row]
        return Problem((self.source, line, name), f"`{name}` in line {line} of {self.source} {needed}")


def cell_of(value: object) -> Cell:
    """A value of any reader's as a cell; NaN and its like are None."""
    if value is None or isinstance(value, date):
        # pandas' NaT is a date that is none.
        return None if value is None or value != value else value
    if isinstance(value, str):
        # Of several lines, as quoted cells may be, one.
        return (" ".join(value.split()) if "\n" in value or "\r" in value else value.strip()) or None
    if isinstance(value, bool):
        return str(value)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
    return None if number != number else number
