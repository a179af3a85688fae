"""What commands print and write: tables for people, and CSV, JSON and Parquet for programs."""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TextIO, TypeVar

from ..errors import InvalidInput, Problem
from ..intake.settings import NAMES
from ..pipeline import Assessment
from ..report import notes
from ..steps import Progress as Made
from ..steps import Steps
from .arguments import flag_of

T = TypeVar("T")
FORMATS = (".csv", ".json", ".parquet")
_FEW = 5
"""Panels beside which progress is no news."""


def refuse(error: object) -> int:
    """Say what is wrong in one line, and by which flag a question is answered; 2, for the shell."""
    print(f"calibrant: {_sentence(error)}", file=sys.stderr)
    return 2


def _sentence(error: object) -> str:
    said = " ".join(str(error).split())
    if not isinstance(error, InvalidInput):
        return said
    flags = [flag_of(str(p.path[0])) for p in error.problems if p.path and p.path[0] in NAMES]
    answers = " or ".join(dict.fromkeys(flags))
    more = len(error.problems) - max(len(flags), 1)
    # A column that is missing is said by its name in the sentence, and may have another in the file.
    columns = bool(flags) and flags[0] == "--columns" and len(error.problems[0].path) > 1
    hint = " (--columns FIELD=NAME says which is which)" if columns else f" ({answers})" if flags else ""
    return f"{said}{hint}{f' (and {more} more)' if more > 0 else ''}"


def require_format(path: Path | None) -> None:
    """raises  InvalidInput if a file is to be written whose name tells no format"""
    if path is not None and path.suffix not in FORMATS:
        needed = f"must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, but is {path.name!r}."
        raise InvalidInput(Problem(("out",), f"`--out` {needed}"))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one or more kinds as a table; absent and None are empty.

    raises  ImportError for Parquet without pyarrow
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ImportError("Parquet needs pyarrow: pip install 'calibrant[arrow]'.") from error
        columns = {name: [row.get(name) for row in rows] for name in names}
        parquet.write_table(pyarrow.table(columns), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".json":
            _write_json(file, rows)
        else:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _write_json(file: TextIO, rows: Iterable[Mapping[str, Any]]) -> None:
    file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)


class Progress:
    """How many of many are done, on a terminal's line of its own; nothing where nobody watches."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = monotonic()
        self._shown = total > _FEW and sys.stderr.isatty()

    def show(self, done: int) -> None:
        if not self._shown or not done:
            return
        left = (monotonic() - self._began) / done * (self._total - done)
        print(f"\r{done}/{self._total} panels, {left:.0f} s left \x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Before anything else is printed."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Bar:
    """How far one long work has come, on a terminal's line of its own; nothing where nobody watches."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._began = monotonic()
        self._shown = sys.stderr.isatty()

    def driven(self, steps: Steps[T]) -> T:
        """The result of steps, shown as they are made."""

        def show(progress: Made) -> None:
            share = progress.done / progress.total if progress.total else 0.0
            if self._shown and share:
                left = (monotonic() - self._began) * (1.0 / share - 1.0)
                bar = f"[{'#' * round(30 * share):30}] {share:4.0%}"
                print(f"\r{self._of} {bar}, {left:.0f} s left \x1b[K", end="", file=sys.stderr, flush=True)

        try:
            while True:
                show(next(steps))
        except StopIteration as ended:
            result: T = ended.value
            return result
        finally:
            if self._shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class FitTable:
    """A row of results per panel, the standard errors below it, and what should be known about it."""

    def __init__(self, parameters: Sequence[str], width: int) -> None:
        self.parameters = parameters
        self.width = max(width, len("panel"))
        self.begun = False
        self.told: set[str] = set()
        """Of a file as a whole: once is enough."""

    def print(self, label: str, assessment: Assessment) -> None:
        if not self.begun:
            names = "".join(f"{name:>10}" for name in self.parameters)
            print(f"{'panel':{self.width}}{names}{'rmse_bp':>10}{'max_bp':>10}{'quotes':>12}  status")
            self.begun = True
        fit = assessment.calibration
        values = "".join(f"{value:>10.5g}" for value in fit.parameters)
        errors = "".join(f"{'':>10}" if error != error else f"{error:>10.2g}" for error in fit.standard_errors)
        used = f"{fit.n_quotes}/{fit.n_quotes + len(fit.excluded)}"
        print(f"{label:{self.width}}{values}{fit.rmse_bp:>10.2f}{fit.max_abs_bp:>10.2f}{used:>12}  {fit.status}")
        print(f"{'+-':>{self.width}}{errors}")
        for note in notes(assessment):
            if note not in self.told:
                print(f"  {note}")
            if note.startswith("columns_ignored"):
                self.told.add(note)
