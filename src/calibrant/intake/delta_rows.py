"""Vols by delta that stand below each other, a row an option or a strategy, put side by side: a row an expiry."""

from collections.abc import Mapping
from dataclasses import replace

from .names import column_named, normalised
from .numbers import is_missing, number_of
from .table import Cell, Table

_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("c", "call", "calls"), "call"),
    **dict.fromkeys(("p", "put", "puts"), "put"),
    **dict.fromkeys(("rr", "risk reversal", "risk_reversal", "riskreversal"), "rr"),
    **dict.fromkeys(("bf", "butterfly", "fly", "ms", "strangle", "market strangle"), "bf"),
    **dict.fromkeys(("atm", "dns", "straddle"), "atm"),
}
_VOLS = ("iv",)
_LEAST, _MOST = 0.5, 50.0
"""Per cent of delta: of an option out of the money."""


def widened(table: Table) -> Table:
    """The table with a row for each expiry, if its rows are of options named by delta; else as it is."""
    columns: dict[str, int] = {}
    for index, name in enumerate(table.names):
        column = column_named(name, index)
        field = "delta" if normalised(name) == "delta" else column.field if column is not None else ""
        if field and not all(is_missing(row[index]) for row in table.rows):
            columns.setdefault(field, index)
    vol = next((columns[field] for field in _VOLS if field in columns), None)
    if vol is None or not {"delta", "type"} <= columns.keys() or {"strike", "log_moneyness", "bid"} & columns.keys():
        return table
    own = (columns["delta"], columns["type"], vol)
    alike = [
        columns[field]
        for field in ("underlying", "as_of", "expiry", "tenor", "spot", "rate", "dividend_yield")
        if field in columns
    ]
    rows: dict[tuple[Cell, ...], dict[str, Cell]] = {}
    lines: dict[tuple[Cell, ...], int] = {}
    for line, row in zip(table.lines, table.rows, strict=True):
        called = _field(row[own[1]], row[own[0]])
        if called is None:
            return table
        key = tuple(row[i] for i in alike)
        rows.setdefault(key, {})[called] = row[vol]
        lines.setdefault(key, line)
    fields = sorted({field for quotes in rows.values() for field in quotes})
    if "atm" not in fields:
        return table
    return replace(
        table,
        names=[*(table.names[i] for i in alike), *fields],
        rows=[[*key, *(quotes.get(field) for field in fields)] for key, quotes in rows.items()],
        lines=list(lines.values()),
    )


def _field(kind: Cell, delta: Cell) -> str | None:
    """`put25` of a put and a delta of 0.25, -0.25 or 25."""
    what = _KINDS.get(str(kind).strip().lower())
    if what == "atm":
        return what
    size = number_of(delta)
    if what is None or size is None:
        return None
    per_cent = abs(size) * (1.0 if abs(size) >= 1.0 else 100.0)
    return f"{what}{round(per_cent)}" if _LEAST <= per_cent <= _MOST else None
