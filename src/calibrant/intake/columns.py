"""Which column of a table holds which field, of calls and puts side by side too, and what is missing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ..errors import InvalidInput, Problem
from .contracts import contract_of
from .names import SIDED, SYNONYMS, Column, Side, column_named, normalised
from .numbers import decimal_mark, is_missing, number_of, numbers_in
from .settings import Settings, question
from .table import Table

BOTH: Final[tuple[Side, Side]] = ("call", "put")
NUMERIC = (
    *("strike", "log_moneyness", "bid", "ask", "mid", "last", "iv", "bid_iv", "ask_iv", "forward", "spot", "rate"),
    *("dividend_yield", "discount", "weight"),
)
_MIDDLES: Final = ("mid", "mid_price", "midprice", "mid_px", "px_mid", "price_mid", "mark", "mark_price")
_NOTED: Final = frozenset(
    (
        *(
            "volume",
            "open_interest",
            "openinterest",
            "oi",
            "open_int",
            "delta",
            "gamma",
            "vega",
            "theta",
            "rho",
            "change",
        ),
        *("percent_change", "net", "net_change", "in_the_money", "contract_size", "currency", "bid_size", "ask_size"),
        *(
            "trade_volume",
            "pct_change",
            "chg",
            "moneyness",
            "high",
            "low",
            "open",
            "vanna",
            "charm",
            "multiplier",
            "id",
        ),
        *("source", "licence", "license", "notes", "note", "remark", "remarks", "comment", "reason", "exchange"),
    )
)
"""Known not to be needed: they are passed over without a word."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table by what they hold."""

    of: Mapping[tuple[str, Side | None], Column]
    ignored: Sequence[str]
    """Names of those that nothing is taken from."""
    empty: Sequence[str]

    @property
    def sided(self) -> bool:
        """Whether a row holds a call and a put."""
        return any(side is not None for _, side in self.of)

    def find(self, field: str, side: Side | None = None) -> Column | None:
        """Of a field; one of the side, else one of both."""
        return self.of.get((field, side)) or self.of.get((field, None))

    def has(self, *fields: str) -> bool:
        """Whether any of the fields is there, of any side."""
        return any(field in fields for field, _ in self.of)

    @property
    def deltas(self) -> list[Column]:
        """Of quotes by delta."""
        return [column for (field, _), column in self.of.items() if re.fullmatch(r"(?:put|call|rr|bf)\d+", field)]


def columns_of(table: Table, settings: Settings) -> Columns:
    """raises  InvalidInput if a column asked for is not there, or two blocks of columns cannot be told apart"""
    said = _asked_for(table, settings.columns or {})
    taken = {column.index for column in said.values()}
    empty = {i for i in range(len(table.names)) if table.rows and all(is_missing(cell) for cell in table.column(i))}
    named = [
        column
        for index, name in enumerate(table.names)
        if index not in taken
        and (column := column_named(re.sub(r"\.\d$", "", name), index)) is not None
        and column.field not in said
        and index not in empty
    ]
    named = [_bare_side(column, table) if column.rank == 99 else column for column in named]
    named = _with_blocks([column for column in named if column.field], table)
    named = [_as_seen(column, table) for column in named]
    of: dict[tuple[str, Side | None], Column] = {(field, None): column for field, column in said.items()}
    for column in sorted(named, key=lambda column: column.rank):
        of.setdefault((column.field, column.side), column)
    if ("bid", None) in of and ("ask", None) in of and "mid" not in said:
        vague = of.get(("mid", None))
        # What is called a price may be anybody's, of the last trade or of the underlying: bid and ask are the quote.
        if vague is not None and vague.said not in _MIDDLES:
            del of["mid", None]
    used = {column.index for column in of.values()}
    ignored = [
        name
        for index, name in enumerate(table.names)
        if index not in used | empty
        and name
        and not re.fullmatch(r"unnamed_\d+|index", plain := normalised(name))
        and plain not in _NOTED
    ]
    return Columns(of=of, ignored=ignored, empty=[table.names[i] for i in sorted(empty)])


def _asked_for(table: Table, columns: Mapping[str, str]) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for field, name in columns.items():
        if field not in SYNONYMS:
            raise question("columns", f"must name fields ({', '.join(SYNONYMS)}), but names {field[:40]!r}.")
        at = [i for i, each in enumerate(table.names) if each == name] or [
            i for i, each in enumerate(table.names) if normalised(each) == normalised(name)
        ]
        if not at:
            raise question(
                "columns", f"must name columns of {table.source} ({listed(table.names)}), not {name[:40]!r}."
            )
        known = column_named(name, at[0])
        scale = known.scale if known is not None else 1.0
        # Of what is asked for, the unit is what its own name says, and nothing else.
        plain = known.said if known is not None and known.field == field else ""
        found[field] = Column(index=at[0], name=table.names[at[0]], field=field, rank=-1, scale=scale, said=plain)
    return found


def _bare_side(column: Column, table: Table) -> Column:
    """`Calls`: their names or their prices."""
    first = next((cell for cell in table.column(column.index) if not is_missing(cell)), None)
    if isinstance(first, str) and contract_of(first) is not None:
        return replace(column, field="contract")
    return (
        column
        if number_of(first, "point") is not None or number_of(first, "comma") is not None
        else replace(column, field="")
    )


def _as_seen(column: Column, table: Table) -> Column:
    """A name of two meanings: `symbol` is of an option or of what it is on, `k` a strike or its logarithm."""
    cells = [cell for cell in table.column(column.index) if not is_missing(cell)]
    if column.field == "contract" and not any(isinstance(cell, str) and contract_of(cell) for cell in cells[:20]):
        is_name = column.said in ("symbol", "option", "options", "instrument", "contract", "series")
        one = len(set(map(str, cells))) <= max(1, len(cells) // 3)
        return (
            replace(column, field="underlying", rank=50)
            if is_name and one and column.side is None
            else replace(column, field="unread")
        )
    if column.said == "k" and any((number_of(cell) or 1.0) < 0.0 for cell in cells):
        return replace(column, field="log_moneyness")
    return column


def _with_blocks(named: Sequence[Column], table: Table) -> list[Column]:
    """Fields that are there twice without a word of their side get one: calls and puts stand in two blocks."""
    twice = {
        column.field
        for column in named
        if column.field in SIDED
        and column.side is None
        and sum(each.said == column.said and each.side is None for each in named) == 2
    }
    blocks = [[c for c in named if c.field in twice and c.side is None][i::2] for i in (0, 1)]
    if not twice:
        return list(named)
    # Of each field the columns come in the order of the blocks, whatever stands between.
    by_field = {
        field: sorted((c for c in named if c.field == field and c.side is None), key=lambda c: c.index)
        for field in twice
    }
    blocks = [[], []]
    for columns in by_field.values():
        for said in dict.fromkeys(c.said for c in columns):
            pair = [c for c in columns if c.said == said]
            for i, column in enumerate(pair[:2]):
                blocks[i].append(column)
    first = _first_side(named, blocks, table)
    sides = BOTH if first == "call" else BOTH[::-1]
    moved = {c.index: replace(c, side=side) for block, side in zip(blocks, sides, strict=True) for c in block}
    return [moved.get(column.index, column) for column in named]


def _first_side(named: Sequence[Column], blocks: Sequence[Sequence[Column]], table: Table) -> Side:
    """Of the block on the left.

    raises  InvalidInput if neither a heading nor the prices tell
    """
    marks = sorted((c.index, c.side) for c in named if c.side is not None)
    if len({side for _, side in marks}) == 2:
        return marks[0][1] or "call"
    for line in reversed(table.above):
        found = [(place, side) for side in BOTH if (place := line.lower().find(side)) >= 0]
        if len(found) == 2:
            return min(found)[1]
    strikes = next((c for c in named if c.field == "strike"), None)
    prices = [c for block in blocks for c in block if c.field in ("bid", "ask", "mid", "last")]
    if strikes is not None and len(prices) >= 2:
        first, second = prices[0], prices[len(prices) // 2]
        mark = decimal_mark(table, [strikes.index, first.index, second.index], None)
        x, *y = (numbers_in(table.column(c.index), mark).values for c in (strikes, first, second))
        known = np.isfinite([x, *y]).all(axis=0)
        # Calls fall with the strike, and puts rise.
        with np.errstate(over="ignore", invalid="ignore"):
            rise = [float((x[known] - x[known].mean()) @ price[known]) if known.any() else 0.0 for price in y]
        if rise[0] < 0.0 < rise[1]:
            return "call"
        if rise[1] < 0.0 < rise[0]:
            return "put"
    needed = (
        f"must say which columns are of calls and which of puts, since {table.source} has each twice: name them "
        "`call_bid` and so on"
    )
    raise question("columns", f"{needed}.")


def absent(table: Table, columns: Columns, missing: Mapping[str, str]) -> InvalidInput:
    """The refusal of a table without the columns for these fields, with what it has instead.

    missing  what each field is called in a sentence
    """
    filled = [name for name in table.names if name not in columns.empty]
    empty = f", and without a value {listed(columns.empty)}" if any(columns.empty) else ""
    detail = f"{table.source} must have columns for {', '.join(missing.values())}; it has {listed(filled)}{empty}."
    root = "quotes" if table.of_body else "columns"
    return InvalidInput(*(Problem((root, field), detail) for field in missing))


def listed(names: Sequence[str]) -> str:
    """Names of columns in a sentence."""
    shown = [f"`{name[:40]}`" for name in names if name]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
