"""Quotes as people have them, to panels: files of any usual kind, columns by any usual name, prices or vols or deltas.

    files     `sources` reads them (`delimited`, `documents`) to a `table` of cells
    columns   `columns` finds which holds what, by `names`; `numbers`, `dates` and `contracts` read cells
    quotes    `quotes` are the cells understood, in years (`clock`), in known `units`, panels told apart
    panels    `chain` makes them of prices, by put-call `parity`, of `american` prices too; `surface` of vols, `delta` of
              quotes by delta; `built` is what comes of it, and how it was made

What a file leaves open is settled by `settings`, or asked: never guessed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from .built import Built, Expiry
from .chain import panel_of_prices
from .quotes import quotes_in
from .settings import NAMES, Settings, settings_of
from .sources import tables_in, tables_of_bytes
from .surface import panel_of_vols
from .table import Table

__all__ = ["Built", "Expiry", "Settings", "panels_of_bytes", "panels_of_files", "panels_of_tables", "settings_of"]


def panels_of_files(paths: Sequence[str | Path], settings: Settings | None = None) -> list[Built]:
    """The panels of files, in the order in which they begin.

    paths    CSV, TSV, Excel, Parquet or JSON; `-` is standard input
    raises   InvalidInput naming every cell, or column, that cannot be read, or as a question the setting that answers
             it; OSError if a file cannot be read; ImportError naming the package that a format needs
    """
    settings = settings or Settings()
    return panels_of_tables((table for path in paths for table in tables_in(path, settings.sheet)), settings)


def panels_of_bytes(content: bytes, source: str, settings: Settings | None = None) -> list[Built]:
    """The same of what a file holds."""
    settings = settings or Settings()
    return panels_of_tables(tables_of_bytes(content, source, settings.sheet), settings)


def panels_of_tables(tables: Iterable[Table], settings: Settings) -> list[Built]:
    """The same of tables."""
    built = []
    for table in tables:
        known = _with_constants(settings, table)
        for quotes in quotes_in(table, known):
            built.append((panel_of_prices if quotes.has_prices else panel_of_vols)(quotes, known))
    return built


def _with_constants(settings: Settings, table: Table) -> Settings:
    """What the table says once for all its rows holds where the settings say nothing."""
    said: dict[str, Any] = {name: value for name, value in table.constants.items() if name in NAMES}
    defaults = Settings()
    chosen = {
        each.name: getattr(settings, each.name)
        for each in fields(Settings)
        if getattr(settings, each.name) != getattr(defaults, each.name)
    }
    return replace(settings_of(said), **chosen) if said else settings


