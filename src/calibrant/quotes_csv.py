"""Panels of quotes from a CSV file, the input of the command line."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import InvalidInput, Problem
from .panel import MAX_PROBLEMS, Exclusion, OptionPanel

# Column of the file for each field of a panel.
COLUMNS = {
    "expiry": "expiry_years",
    "strike": "strike",
    "forward": "forward",
    "iv": "mid_iv",
    "bid_iv": "bid_iv",
    "ask_iv": "ask_iv",
}
_REQUIRED = ("expiry", "strike", "forward")
_VOLS = ("iv", "bid_iv", "ask_iv")
PANEL_COLUMNS = ("underlying", "as_of")


class _Row(NamedTuple):
    line: int
    values: dict[str, float | None]


def read_csv(path: str | Path) -> list[tuple[str, OptionPanel]]:
    """The panels of a file, in the order in which they begin, each with its label.

    path     a CSV file in UTF-8 with a header line; columns expiry_years (years), strike, forward, and mid_iv or bid_iv
             and ask_iv or all three (decimals). Rows are told apart by `underlying` and `as_of`, where present; other
             columns are ignored. An empty cell, also of strike, forward or expiry, makes a missing quote
    returns  (label, panel): the label is "underlying as_of", or the file's name where neither is given; `index` and
             `excluded` of the panel count its rows in the file from 0, and so do the indices of its `cautions`
    raises   InvalidInput with the file, the line and the column of every problem; OSError if the file cannot be opened
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            present = _present(path.name, reader.fieldnames or ())
            panels = _rows_by_panel(path, reader, present)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(Problem((path.name,), f"{path.name} is not a CSV file in UTF-8: {error}.")) from None
    if not panels:
        raise InvalidInput(Problem((path.name,), f"{path.name} must hold at least one quote, but has only a header."))
    return [(label, _panel(path.name, label, rows, present)) for label, rows in panels.items()]


def _present(file: str, names: Sequence[str]) -> tuple[str, ...]:
    """The fields that the file has columns for."""
    present = tuple(field for field, column in COLUMNS.items() if column in names)
    missing = [COLUMNS[field] for field in _REQUIRED if field not in present]
    if "iv" not in present and not {"bid_iv", "ask_iv"} <= set(present):
        missing.append("mid_iv (or bid_iv and ask_iv)")
    if missing:
        raise InvalidInput(
            *(Problem((file, column), f"{file} must have a column `{column}`, but has none.") for column in missing)
        )
    return present


def _rows_by_panel(path: Path, reader: "csv.DictReader[str]", present: Sequence[str]) -> dict[str, list[_Row]]:
    panels: dict[str, list[_Row]] = {}
    problems: list[Problem] = []
    for cells in reader:
        label = " ".join(filter(None, ((cells.get(column) or "").strip() for column in PANEL_COLUMNS))) or path.stem
        values: dict[str, float | None] = {}
        for field in present:
            text = (cells.get(COLUMNS[field]) or "").strip()
            try:
                value = float(text) if text else None
            except ValueError:
                problems.append(_at_line(path.name, reader.line_num, field, f"must be a number, but is {text[:80]!r}."))
                if len(problems) == MAX_PROBLEMS:
                    raise InvalidInput(*problems) from None
                continue
            # Other programs write a missing number as nan.
            values[field] = None if value != value else value
        panels.setdefault(label, []).append(_Row(reader.line_num, values))
    if problems:
        raise InvalidInput(*problems)
    return panels


def _panel(file: str, label: str, rows: Sequence[_Row], present: Sequence[str]) -> OptionPanel:
    positions = [i for i, row in enumerate(rows) if all(row.values[field] is not None for field in _REQUIRED)]
    columns = {field: [rows[i].values[field] for i in positions] for field in present}
    if not positions:
        needed = f"must hold a quote with expiry, strike and forward, but none of its {len(rows)} rows has all three."
        raise InvalidInput(Problem((file, label), f"Panel {label} of {file} {needed}"))
    try:
        panel = OptionPanel.from_quotes(
            expiry=columns["expiry"],
            strike=columns["strike"],
            forward=columns["forward"],
            iv=columns.get("iv"),
            bid_iv=columns.get("bid_iv"),
            ask_iv=columns.get("ask_iv"),
            path=(),
        )
    except InvalidInput as error:
        raise InvalidInput(*(_in_file(problem, file, label, rows, positions) for problem in error.problems)) from None
    if len(positions) == len(rows):
        return panel
    incomplete = sorted(set(range(len(rows))) - set(positions))
    return panel.renumbered(
        np.array(positions, np.int64),
        [Exclusion(i, "missing quote: no expiry, strike or forward") for i in incomplete],
    )


def _in_file(problem: Problem, file: str, label: str, rows: Sequence[_Row], positions: Sequence[int]) -> Problem:
    """A problem of a panel, said in terms of the file."""
    needed = problem.detail.split("` ", 1)[1]
    if len(problem.path) == 2 and isinstance(problem.path[1], int):
        return _at_line(file, rows[positions[problem.path[1]]].line, str(problem.path[0]), needed)
    return Problem((file, label), f"Panel {label} of {file} {needed}")


def _at_line(file: str, line: int, field: str, needed: str) -> Problem:
    column = COLUMNS[field]
    return Problem((file, line, column), f"`{column}` in line {line} of {file} {needed}")
