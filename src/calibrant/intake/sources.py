"""Tables from files of any format, told by their content and not by their name."""

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidInput, Problem
from .delimited import delimited_table, header_in, table_below
from .documents import json_tables
from .settings import question
from .table import Table, cell_of

STDIN = "-"


def tables_in(path: str | Path, sheet: str | None = None) -> list[Table]:
    """The tables of a file; `-` is standard input.

    raises  InvalidInput if it is of no known format, OSError if it cannot be read, ImportError naming the package that
            its format needs
    """
    if str(path) == STDIN:
        return tables_of_bytes(sys.stdin.buffer.read(), "standard input", sheet)
    path = Path(path)
    return tables_of_bytes(path.read_bytes(), path.name, sheet)


def tables_of_bytes(content: bytes, source: str, sheet: str | None = None) -> list[Table]:
    """`tables_in` of what a file holds."""
    if content.startswith(b"PK\x03\x04"):
        return [_workbook_table(content, source, sheet)]
    if content.startswith(b"PAR1"):
        return [_parquet_table(content, source)]
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        needed = "is a workbook of the old Excel format: save it as .xlsx or CSV"
        raise InvalidInput(Problem((source,), f"{source} {needed}."))
    # Names of columns may be in brackets too.
    if re.match(rb"\s*(?:\{|\[\s*[\[\]{\"])", content.removeprefix(b"\xef\xbb\xbf")):
        return json_tables(content.removeprefix(b"\xef\xbb\xbf"), source)
    return [delimited_table(content, source)]


def _workbook_table(content: bytes, source: str, sheet: str | None) -> Table:
    """The sheet that names most columns, or the one asked for."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ImportError(f"{source} is a workbook, which needs openpyxl: pip install 'calibrant[excel]'.") from error
    try:
        # Cell by cell, and with the values that formulas had when it was saved.
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = {each.title: _rows(each) for each in book.worksheets}
    except Exception as error:
        raise InvalidInput(Problem((source,), f"{source} is no workbook that can be read: {error}.")) from None
    if sheet is not None and sheet not in sheets:
        raise question("sheet", f"must be one of {', '.join(sheets)}, but is {sheet[:40]!r}.")
    headers = {title: header_in([row for _, row in rows[:40]]) for title, rows in sheets.items()}
    chosen = [sheet] if sheet is not None else [title for title, (_, n_known) in headers.items() if n_known > 1]
    if len(chosen) > 1:
        raise question("sheet", f"must be given, since {source} has quotes on {', '.join(chosen)}.")
    if not chosen or headers[chosen[0]][1] == 0:
        needed = "must have a row that names its columns (expiry, strike, bid, ...), but has none"
        raise InvalidInput(Problem((source,), f"{source} {needed}."))
    return table_below(sheets[chosen[0]], headers[chosen[0]][0], source)


def _rows(sheet: Any) -> list[tuple[int, Sequence[object]]]:
    """Rows that are not blank, by their number."""
    # Programs write them wrong.
    sheet.reset_dimensions()
    rows = enumerate(sheet.iter_rows(values_only=True), 1)
    return [(number, row) for number, row in rows if any(cell is not None for cell in row)]


def _parquet_table(content: bytes, source: str) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError(f"{source} is Parquet, which needs pyarrow: pip install 'calibrant[arrow]'.") from error
    try:
        frame = parquet.read_table(io.BytesIO(content))
    except (ArrowException, OSError) as error:
        raise InvalidInput(Problem((source,), f"{source} is no Parquet that can be read: {error}.")) from None
    columns: Sequence[Sequence[object]] = [column.to_pylist() for column in frame.columns]
    rows = [[cell_of(cell) for cell in row] for row in zip(*columns, strict=True)]
    return Table(source=source, names=frame.column_names, rows=rows, lines=range(1, len(rows) + 1))
