"""Panels as CSV files: the columns that the command line writes, and reads like any other file of quotes."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .panel import OptionPanel

if TYPE_CHECKING:
    from .intake import Built

# Column of the file for each field of a panel.
COLUMNS = {
    "expiry": "expiry_years",
    "strike": "strike",
    "forward": "forward",
    "iv": "mid_iv",
    "bid_iv": "bid_iv",
    "ask_iv": "ask_iv",
}
_WRITTEN = {**COLUMNS, "log_moneyness": "log_moneyness", "weight": "weight"}
PANEL_COLUMNS = ("underlying", "as_of")


def read_csv(path: str | Path) -> list[tuple[str, OptionPanel]]:
    """The panels of a file, each with its label, in the order in which they begin: `read_quotes` of a file that leaves
    nothing open.

    returns  (label, panel): the label is "underlying as_of", or the file's name where neither is given; `index` and
             `excluded` of the panel count its rows in the file from 0, and so do the indices of its `cautions`
    raises   InvalidInput with the file, the line and the column of every problem, or as a question; OSError if the file
             cannot be opened
    """
    # What reads quotes by delta needs columns as `quote_columns` has them, which are named here.
    from .intake import read_quotes

    return [(built.label, built.panel()) for built in read_quotes(path)]


def write_csv(panels: Iterable["Built"], file: TextIO) -> None:
    """Panels as one table, a row a quote, a column for each field that any of them has; digits as they are."""
    made = list(panels)
    fields = [field for field in _WRITTEN if any(field in built.columns for built in made)]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*PANEL_COLUMNS, *(_WRITTEN[field] for field in fields)])
    for built in made:
        columns = built.used()
        # What tells panels apart where nothing else does.
        said = (built.underlying or ("" if built.as_of else built.label), built.as_of or "")
        for i in range(columns["expiry"].size):
            cells = [float(columns[field][i]) if field in columns else float("nan") for field in fields]
            writer.writerow([*said, *("" if cell != cell else repr(cell) for cell in cells)])
