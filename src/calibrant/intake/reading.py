"""From files, bytes or tables to panels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InvalidInput, shown
from ..steps import Steps, finish, in_one_step
from .built import Built
from .chain import panel_of_prices_steps
from .delta import panel_of_deltas
from .quotes import Kind, Quotes, quotes_in
from .settings import NAMES, Settings, question, settings_of
from .sources import tables_in, tables_of_bytes
from .surface import panel_of_vols
from .table import Table

Outcome = tuple[str, Built | InvalidInput]
"""The label of a panel, and the panel or why it is none."""

_MAKERS: Mapping[Kind, Callable[[Quotes, Settings], Steps[Built]]] = {
    "prices": panel_of_prices_steps,
    "vols": lambda quotes, settings: in_one_step(partial(panel_of_vols, quotes, settings)),
    "deltas": lambda quotes, settings: in_one_step(partial(panel_of_deltas, quotes, settings)),
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


def panel_steps(tables: Callable[[], Sequence[Table]], settings: Settings) -> Steps[Built]:
    """The one panel of tables, in steps.

    raises  InvalidInput as `read_quotes`, and if there is more than one panel
    """
    found = [(label, read, known) for table in tables() for label, read, known in _panels(table, settings)]
    if len(found) > 1:
        labels = ", ".join(label for label, _, _ in found[:10])
        raise question("underlying", f"must say which panel, since there are {len(found)}: {shown(labels, 200)}.")
    _, read, known = found[0]
    quotes = read()
    return (yield from _MAKERS[quotes.kind](quotes, known))


def quotes_of_file(path: str | Path, settings: Settings) -> Quotes:
    """The quotes of the one panel of a file, before anything is made of them.

    raises  InvalidInput as `read_quotes`, and if there is more than one panel
    """
    found = [each for table in tables_in(path, settings.sheet) for each in _panels(table, settings)]
    if len(found) > 1:
        labels = ", ".join(label for label, _, _ in found[:10])
        raise question("underlying", f"must say which panel, since there are {len(found)}: {shown(labels, 200)}.")
    return found[0][1]()


def outcomes_of_files(paths: Sequence[str | Path], settings: Settings) -> Iterator[Outcome]:
    """The panels of files one by one; one that can be none is its error, and not raised.

    raises  as `read_quotes` for what is wrong with a file as a whole
    """
    for path in paths:
        yield from outcomes_of(tables_in(path, settings.sheet), settings)


def outcomes_of(tables: Iterable[Table], settings: Settings) -> Iterator[Outcome]:
    """`outcomes_of_files` of tables."""
    for table in tables:
        for label, read, known in _panels(table, settings):
            try:
                quotes = read()
                built = finish(_MAKERS[quotes.kind](quotes, known))
                yield built.label, built
            except InvalidInput as error:
                yield label, error


def _panels(table: Table, settings: Settings) -> list[tuple[str, Callable[[], Quotes], Settings]]:
    known = _with_constants(settings, table)
    return [(label, read, known) for label, read in quotes_in(table, known)]


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
