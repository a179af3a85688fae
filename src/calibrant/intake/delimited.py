"""Tables from text: whichever separator and encoding they were written with, below titles and above footnotes."""

import csv
import io
from collections.abc import Sequence
from itertools import islice

from ..errors import InvalidInput, Problem
from .names import known
from .table import Cell, Table, cell_of

_SEPARATORS = (",", ";", "\t", "|", " ")
_HEADER_WITHIN = 40
"""Lines in which the header has to begin."""
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def delimited_table(content: bytes, source: str) -> Table:
    """The table in a text file.

    raises  InvalidInput if it is no text, or no line of it names a column
    """
    text = _decoded(content, source)
    found = {
        separator: header_in([cells for _, cells in _split(text, separator, source, _HEADER_WITHIN)])
        for separator in _SEPARATORS
    }
    # Of equals the first.
    separator = max(found, key=lambda separator: found[separator][1])
    at, n_known = found[separator]
    if not n_known:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        needed = "must have a line that names its columns (expiry, strike, bid, ...)"
        raise InvalidInput(Problem((source,), f"{source} {needed}, but {_begins(first)}."))
    return table_below(_split(text, separator, source), at, source, commas_separate=separator == ",")


def _begins(first: str) -> str:
    return f"begins with {first[:60]!r}" if first else "is empty"


def _decoded(content: bytes, source: str) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                break
    if b"\x00" not in content:
        try:
            return content.decode()
        except UnicodeDecodeError:
            # What spreadsheets of Western Europe save: every byte of it is a character, but for five.
            try:
                return content.decode("cp1252")
            except UnicodeDecodeError:
                pass
    needed = "must be text (CSV, TSV), an Excel workbook, Parquet or JSON, but is none of them"
    raise InvalidInput(Problem((source,), f"{source} {needed}."))


def _split(text: str, separator: str, source: str, most: int | None = None) -> list[tuple[int, list[str]]]:
    """Rows with the line that each ends at; the first of them, if `most` says so."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        rows = ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
        return list(islice(rows, most))
    except csv.Error as error:
        raise InvalidInput(Problem((source,), f"{source} cannot be read as a table: {error}.")) from None


def header_in(rows: Sequence[Sequence[object]]) -> tuple[int, int]:
    """Which of the rows names most columns, and how many different ones."""
    at, most = 0, 0
    for i, row in enumerate(rows):
        names = {cell.strip() for cell in row if isinstance(cell, str) and cell.strip()}
        n_known = sum(map(known, names))
        if n_known > most:
            at, most = i, n_known
    return at, most


def table_below(
    lines: Sequence[tuple[int, Sequence[object]]], at: int, source: str, *, commas_separate: bool = False
) -> Table:
    """The table whose header is row `at`."""
    names = ["" if cell is None else " ".join(str(cell).split()) for cell in lines[at][1]]
    while names and not names[-1]:
        names.pop()
    width = len(names)
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    skipped: list[int] = []
    for line, cells in lines[at + 1 :]:
        row = [cell_of(cell) for cell in cells[:width]]
        row += [None] * (width - len(row))
        filled = [cell for cell in row if cell is not None]
        if not filled or [str(cell) for cell in filled] == [name for name in names if name]:
            continue
        # `Downloaded from ...`, and comments.
        if len(filled) == 1 and width > 2 and isinstance(filled[0], str) and not filled[0][0].isdigit():
            skipped.append(line)
            continue
        if isinstance(row[0], str) and row[0].startswith("#") and not row[0][1:2].isalpha():
            skipped.append(line)
            continue
        rows.append(row)
        numbers.append(line)
    return Table(
        source=source,
        names=names,
        rows=rows,
        lines=numbers,
        above=[" ".join(str(cell) for cell in cells if cell) for _, cells in lines[:at]],
        skipped=skipped,
        commas_separate=commas_separate,
    )
