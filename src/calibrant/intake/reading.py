"""From files, bytes or tables to panels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from .built import Built
from .chain import panel_of_prices
from .delta import panel_of_deltas
from .quotes import Kind, Quotes, quotes_in
from .settings import NAMES, Settings, settings_of
from .sources import tables_in, tables_of_bytes
from .surface import panel_of_vols
from .table import Table

Outcome = tuple[str, Built | InvalidInput]
"""The label of a panel, and the panel or why it is none."""

_MAKERS: Mapping[Kind, Callable[[Quotes, Settings], Built]] = {
    "prices": panel_of_prices,
    "vols": panel_of_vols,
    "deltas": panel_of_deltas,
}
_DEFAULTS = Settings()


def read_quotes(*paths: str | Path, **settings: Any) -> list[Built]:
    """The panels of files, in the order in which they begin.

    paths     CSV, TSV, Excel, Parquet or JSON; `-` is standard input
    settings  fields of `calibrant.intake.Settings`: what the files leave open
    raises    InvalidInput naming every cell or column that cannot be read, or, as a question, the setting that answers
              it; OSError if a file cannot be read; ImportError naming the package that a format needs
    """
    chosen = settings_of(settings)
    return _all(outcome for path in paths for outcome in outcomes_of(tables_in(path, chosen.sheet), chosen))


def built_of_bytes(content: bytes, source: str, settings: Settings) -> list[Built]:
    """The panels of what a file holds. Raises as `read_quotes`."""
    return _all(outcomes_of(tables_of_bytes(content, source, settings.sheet), settings))


def built_of_tables(tables: Iterable[Table], settings: Settings) -> list[Built]:
    """The panels of tables. Raises as `read_quotes`."""
    return _all(outcomes_of(tables, settings))


def outcomes_of_files(paths: Sequence[str | Path], settings: Settings) -> Iterator[Outcome]:
    """The panels of files one by one; one that can be none is its error, and not raised.

    raises  as `read_quotes` for what is wrong with a file as a whole
    """
    for path in paths:
        yield from outcomes_of(tables_in(path, settings.sheet), settings)


def outcomes_of(tables: Iterable[Table], settings: Settings) -> Iterator[Outcome]:
    """`outcomes_of_files` of tables."""
    for table in tables:
        known = _with_constants(settings, table)
        for label, read in quotes_in(table, known):
            try:
                quotes = read()
                built = _MAKERS[quotes.kind](quotes, known)
                yield built.label, built
            except InvalidInput as error:
                yield label, error


def _all(outcomes: Iterable[Outcome]) -> list[Built]:
    built = []
    for _, outcome in outcomes:
        if isinstance(outcome, InvalidInput):
            raise outcome
        built.append(outcome)
    return built


def _with_constants(settings: Settings, table: Table) -> Settings:
    """What the table says once for all its rows holds where the settings say nothing."""
    said = settings_of({name: value for name, value in table.constants.items() if name in NAMES})
    chosen = {
        each.name: value
        for each in fields(Settings)
        if (value := getattr(settings, each.name)) != getattr(_DEFAULTS, each.name)
    }
    return replace(said, **chosen)
