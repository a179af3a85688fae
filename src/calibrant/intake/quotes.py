"""Quotes of a table: every cell understood, calls and puts a row each, panels told apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ..arrays import IntVector, Vector
from ..caution import Caution
from ..errors import InvalidInput, Problem
from ..panel import MAX_PROBLEMS, Exclusion
from .clock import Clock, as_of_said, day_of, later, mixed_settlement
from .columns import BOTH, NUMERIC, absent, columns_of, listed
from .contracts import EUROPEAN_ROOTS, PARENTS, Contract, contract_of
from .dates import Moment, first_date_in, moment_of, order_of, tenor_of
from .delta_rows import widened
from .names import Column, Side
from .numbers import Mark, decimal_mark, is_missing, number_of, numbers_in
from .settings import LARGEST_RATE, DateOrder, Settings, question
from .table import Cell, Table
from .units import decimal_vols, has_percent_signs, years_of

Kind = Literal["prices", "vols", "deltas"]
VOLS, PRICES = ("iv", "bid_iv", "ask_iv"), ("bid", "ask", "mid", "last")
_TYPES: Mapping[str, Side] = {
    **dict.fromkeys(("c", "call", "calls", "ce", "ca", "call option", "kauf", "ec", "ac"), "call"),
    **dict.fromkeys(("p", "put", "puts", "pe", "pa", "put option", "verkauf", "ep", "ap"), "put"),
}
_LARGEST = 1e15
"""Of any number: no price is larger, and products of these are still numbers."""
_SIGNS = {"call": 1, "put": -1}


@dataclass(frozen=True, kw_only=True)
class Quotes:
    """Quotes of one panel, a value each: floats are NaN where nothing is known."""

    source: str
    label: str
    underlying: str | None
    as_of: str | None
    index: IntVector
    """(n,) Position of each among the rows of the panel, calls and puts of one row counted each."""
    n_rows: int
    """As they were found, those without a value that is needed included."""
    expiry: Vector
    """(n,) Years."""
    expiration: Sequence[str]
    """(n,) The day as found, or how many years."""
    root: Sequence[str | None]
    """(n,) Of the option's name: options of different roots are no pair."""
    side: IntVector
    """(n,) 1 of a call, -1 of a put, 0 where it does not say."""
    values: Mapping[str, Vector]
    """(n,) each, by field."""
    excluded: Sequence[Exclusion] = ()
    cautions: Sequence[Caution] = ()
    kind: Kind
    us_listed: bool
    """Whether the names of the options are those of American exchanges."""
    in_coin: bool
    problem: Callable[[int, str, str], Problem]
    """Of a quote, by its position here and a field: where in the file it stands."""

    def value(self, field: str) -> Vector:
        """NaN where there is no such column."""
        return self.values[field] if field in self.values else np.full(self.index.size, np.nan)

    def has(self, field: str) -> bool:
        return field in self.values and bool(np.isfinite(self.values[field]).any())

    def taken(self, kept: IntVector, excluded: Sequence[Exclusion] = ()) -> "Quotes":
        """Some of the quotes; why the others were left out."""
        at = kept.tolist()
        return replace(
            self,
            index=self.index[kept],
            expiry=self.expiry[kept],
            expiration=[self.expiration[i] for i in at],
            root=[self.root[i] for i in at],
            side=self.side[kept],
            values={name: column[kept] for name, column in self.values.items()},
            excluded=(*self.excluded, *excluded),
            problem=lambda i, field, needed: self.problem(at[i], field, needed),
        )


def quotes_in(table: Table, settings: Settings) -> list[tuple[str, Callable[[], Quotes]]]:
    """The panels of a table by their labels, in the order in which they begin; each may be refused by itself.

    raises  InvalidInput: cells that are no numbers or dates, columns missing, or a question
    """
    reader = _Reader(widened(table), settings)
    if not table.rows:
        raise InvalidInput(
            Problem((table.source,), f"{table.source} must hold at least one quote, but has only a header.")
        )
    return reader.panels()


class _Reader:
    """Reads a table in the order in which one thing is needed for the next."""

    def __init__(self, table: Table, settings: Settings) -> None:
        self.table = table
        self.settings = settings
        self.columns = columns_of(table, settings)
        self.cautions: list[Caution] = []
        sides: tuple[Side | None, ...] = BOTH if self.columns.sided else (None,)
        self.entries = [(row, side) for row in range(len(table.rows)) for side in sides]
        self.by_delta = [*(["atm"] if self.columns.has("atm") else []), *(c.field for c in self.columns.deltas)]
        numeric = [c.index for (field, _), c in self.columns.of.items() if field in (*NUMERIC, *self.by_delta)]
        self.mark: Mark = decimal_mark(table, numeric, settings.decimal)
        self.contracts = self._contracts()
        self.orders = self._date_orders()
        self.kind: Kind = self._kind()
        self._require()

    def panels(self) -> list[tuple[str, Callable[[], Quotes]]]:
        values = self._values()
        side = self._sides()
        expirations = self._expirations()
        as_of, labels = self._as_of(expirations)
        underlying = self._underlyings()
        self._note_what_is_passed_over()
        groups: dict[tuple[str | None, str | None], list[int]] = {}
        for i in range(len(self.entries)):
            groups.setdefault((underlying[i], labels[i]), []).append(i)
        if self.settings.underlying is not None and any(name is not None for name, _ in groups):
            names = [name for name, _ in groups if name is not None]
            groups = {key: at for key, at in groups.items() if key[0] == self.settings.underlying}
            if not groups:
                came = ", ".join(dict.fromkeys(names))
                raise question("underlying", f"must be one of {came}, but is {self.settings.underlying[:40]!r}.")
        return [
            (
                " ".join(filter(None, (name, moment))) or Path(self.table.source).stem,
                partial(self._panel, name, moment, np.array(at, np.int64), values, side, expirations, as_of),
            )
            for (name, moment), at in groups.items()
        ]

    # What there is -------------------------------------------------------------------------------------------------

    def _cells(self, field: str) -> tuple[list[Cell], list[str]]:
        """Of a field, a cell an entry, and the column of each."""
        columns = {side: self.columns.find(field, side) for side in (None, *BOTH)}
        cells: list[Cell] = []
        names: list[str] = []
        for row, side in self.entries:
            column = columns[side]
            cells.append(None if column is None else self.table.rows[row][column.index])
            names.append(field if column is None else column.name)
        return cells, names

    def _contracts(self) -> list[Contract | None]:
        cells, _ = self._cells("contract")
        return [contract_of(cell) if isinstance(cell, str) else None for cell in cells]

    def _date_orders(self) -> dict[str, DateOrder]:
        """Of each field of dates, and of the date given for all."""
        columns = {
            field: self._cells(field)[0] for field in ("expiry", "as_of", "last_trade") if self.columns.has(field)
        }
        if self.settings.expiration is not None:
            columns["expiry"] = [self.settings.expiration]
        return order_of({field: dict.fromkeys(cells) for field, cells in columns.items()}, self.settings.date_order)

    def _has_contracts(self) -> bool:
        return any(contract is not None for contract in self.contracts)

    def _kind(self) -> Kind:
        """What the quotes are of. Vols by delta stand in columns of their own, and have no strikes."""
        if len(self.by_delta) > 1 and not self.columns.has("strike", "log_moneyness"):
            return "deltas"
        return "prices" if self._uses_prices() else "vols"

    def _uses_prices(self) -> bool:
        prices, vols = self.columns.has(*PRICES), self.columns.has(*VOLS)
        if self.settings.use is not None:
            return self.settings.use == "prices"
        # Vols beside a forward are a panel. Without one the vols of a feed hang on a forward that nobody states.
        ready = vols and (self.columns.has("forward", "log_moneyness") or self.settings.forward is not None)
        return (
            prices
            and not ready
            and (self.columns.has("type") or self._has_contracts() or self.columns.sided or not vols)
        )

    def _require(self) -> None:
        """raises  InvalidInput with everything missing"""
        has, settings = self.columns.has, self.settings
        contract = self._has_contracts()
        missing: dict[str, str] = {}
        if not contract and settings.expiration is None and not has("expiry", "tenor"):
            missing["expiry"] = "expiry (`expiration` in dates, or `expiry_years`)"
        if self.kind == "deltas":
            if not has("atm"):
                missing["atm"] = "atm (the vol at the money)"
        elif not contract and not has("strike") and not (self.kind == "vols" and has("log_moneyness")):
            missing["strike"] = "strike"
        if self.kind == "prices":
            if not contract and not self.columns.sided and not has("type"):
                missing["type"] = "type (call or put)"
            if not has("bid", "mid", "last"):
                missing["bid"] = "prices (bid and ask, or mid)"
        if self.kind == "vols":
            level = settings.forward is not None or settings.spot is not None
            if not level and not has("forward", "spot", "log_moneyness"):
                missing["forward"] = "forward (or spot, with `rate`)"
            if not has("iv") and not (has("bid_iv") and has("ask_iv")):
                missing["iv"] = "vols or prices (`mid_iv`, or `bid_iv` and `ask_iv`, or `bid` and `ask`)"
        if missing:
            raise absent(self.table, self.columns, missing)

    # Values --------------------------------------------------------------------------------------------------------

    def _values(self) -> dict[str, Vector]:
        values: dict[str, Vector] = {}
        problems: list[Problem] = []
        percent: dict[str, bool] = {}
        for field in (*NUMERIC, *self.by_delta):
            if not self.columns.has(field):
                continue
            cells, names = self._cells(field)
            read = numbers_in(cells, self.mark)
            problems += [
                self.table.problem(self.entries[i][0], names[i], f"must be a number, but is {str(cells[i])[:80]!r}.")
                for i in read.unreadable[:MAX_PROBLEMS]
            ]
            problems += [
                self.table.problem(
                    self.entries[i][0], names[i], f"must be at most {_LARGEST:g}, but is {read.values[i]:g}."
                )
                for i in np.flatnonzero(np.abs(read.values) > _LARGEST)[:MAX_PROBLEMS].tolist()
            ]
            found = [c for (of, _), c in self.columns.of.items() if of == field]
            signs = has_percent_signs(cells)
            # A percent sign, or a name that says percent, and not twice.
            values[field] = read.values if signs else read.values * found[0].scale
            percent[field] = signs or found[0].scale != 1.0
        if problems:
            raise InvalidInput(*problems[:MAX_PROBLEMS])
        self._require_decimal_rates(values)
        for name in ("spot", "forward", "rate", "dividend_yield"):
            given = getattr(self.settings, name)
            if given is not None:
                values[name] = np.full(len(self.entries), given)
        if self._has_contracts() and "strike" not in values:
            values["strike"] = np.array([np.nan if c is None else c.strike for c in self.contracts])
        if self.settings.strike_unit is not None and "strike" in values:
            values["strike"] = values["strike"] * self.settings.strike_unit
        vols = {name: values[name] for name in (self.by_delta if self.kind == "deltas" else VOLS) if name in values}
        if vols and self.kind != "prices":
            read_vols = decimal_vols(vols, percent, self.settings)
            values.update(read_vols.values)
            self.cautions += read_vols.cautions
        return values

    def _require_decimal_rates(self, values: Mapping[str, Vector]) -> None:
        """raises  InvalidInput for a column of rates in percent, where no setting stands in its place"""
        for name in ("rate", "dividend_yield"):
            if name not in values or getattr(self.settings, name) is not None:
                continue
            known = values[name][np.isfinite(values[name])]
            if known.size and float(np.median(np.abs(known))) >= LARGEST_RATE:
                needed = f"must be given as a decimal (0.04 for 4 %), since its column has {float(np.median(known)):g}"
                raise question(name, f"{needed} at the median.")

    def _sides(self) -> IntVector:
        if self.columns.sided:
            return np.array([_SIGNS[side] if side else 0 for _, side in self.entries], np.int64)
        column = self.columns.find("type")
        if column is None:
            return np.array([0 if c is None else _SIGNS[c.side] for c in self.contracts], np.int64)
        sides = np.zeros(len(self.entries), np.int64)
        problems = []
        for i, (row, _) in enumerate(self.entries):
            cell = self.table.rows[row][column.index]
            if is_missing(cell):
                continue
            side = _side_of(cell, column)
            if side is not None:
                sides[i] = _SIGNS[side]
            elif self.kind == "prices":
                needed = f"must be call or put, but is {str(cell)[:80]!r}."
                problems.append(self.table.problem(row, column.name, needed))
        if problems:
            raise InvalidInput(*problems[:MAX_PROBLEMS])
        return sides

    # Time ----------------------------------------------------------------------------------------------------------

    def _expirations(self) -> list[Moment | float | None]:
        """A day or a number of years each."""
        settings = self.settings
        column = self.columns.find("expiry") or self.columns.find("tenor")
        if settings.expiration is not None:
            cells: list[Cell] = [settings.expiration] * len(self.entries)
            column = Column(index=-1, name="expiration", field="expiry", rank=0, said="expiration")
        elif column is None:
            return [None if c is None else Moment(c.expiration) for c in self.contracts]
        else:
            cells = [self.table.rows[row][column.index] for row, _ in self.entries]
        order = self.orders.get("expiry", "mdy")
        found: list[Moment | float | None] = []
        plain = np.full(len(cells), np.nan)
        problems = []
        seen: dict[Cell, Moment | float | None] = {}
        for i, cell in enumerate(cells):
            if is_missing(cell):
                contract = self.contracts[i]
                found.append(None if contract is None else Moment(contract.expiration))
                continue
            if cell not in seen:
                moment = moment_of(cell, order)
                seen[cell] = moment if moment is not None else tenor_of(cell)
            if seen[cell] is None:
                number = number_of(cell, self.mark if isinstance(cell, str) else "point")
                if number is None:
                    needed = f"must be a number of years or a date, but is {str(cell)[:80]!r}."
                    if column.index < 0:
                        raise question("expiration", needed)
                    problems.append(self.table.problem(self.entries[i][0], column.name, needed))
                else:
                    plain[i] = number * column.scale
            found.append(seen[cell])
        if problems:
            raise InvalidInput(*problems[:MAX_PROBLEMS])
        years = years_of(plain, cells, column, self.table.source, settings)
        return [
            float(y) if moment is None and not np.isnan(y) else moment
            for moment, y in zip(found, years.tolist(), strict=True)
        ]

    def _as_of(self, expirations: Sequence[Moment | float | None]) -> tuple[list[Moment | None], list[str | None]]:
        """The moment of each quote, where it is needed or known, and what its panel is called by it."""
        n = len(self.entries)
        if self.settings.as_of is not None:
            said = as_of_said(self.settings.as_of, self.settings)
            return [said] * n, [self.settings.as_of.strip()] * n
        dated = any(isinstance(expiration, Moment) for expiration in expirations)
        column = self.columns.find("as_of")
        if column is not None:
            cells = [self.table.rows[row][column.index] for row, _ in self.entries]
            order = self.orders["as_of"]
            read = {cell: moment_of(cell, order) for cell in set(cells)}
            moments = [read[cell] for cell in cells]
            lost = [
                i
                for i, (cell, moment) in enumerate(zip(cells, moments, strict=True))
                if cell is not None and moment is None
            ]
            if dated and lost:
                needed = f"must be a date, but is {str(cells[lost[0]])[:80]!r}."
                raise InvalidInput(self.table.problem(self.entries[lost[0]][0], column.name, needed))
            if not (dated and all(moment is None for moment in moments)):
                return self._snapshots(cells, moments)
        if not dated:
            return [None] * n, [None] * n
        inferred, how = self._inferred()
        detail = f"The quotes were taken to be of {inferred}, {how}: `as_of` says otherwise."
        self.cautions.append(Caution("as_of_inferred", detail))
        return [inferred] * n, [str(inferred)] * n

    def _inferred(self) -> tuple[Moment, str]:
        cells, _ = self._cells("last_trade")
        order = self.orders.get("last_trade", "mdy")
        trades = [moment for cell in set(cells) if (moment := moment_of(cell, order)) is not None]
        if trades:
            latest = trades[0]
            for moment in trades[1:]:
                latest = later(latest, moment)
            return day_of(latest, self.settings.time_zone), "the day of the latest trade"
        above = first_date_in(self.table.above)
        if above is not None:
            return Moment(above.day), "the date above the table"
        needed = "must be given (the date of the quotes, such as 2025-11-28), since expiries are dates"
        raise question("as_of", f"{needed} and {self.table.source} has no column of it.")

    def _snapshots(
        self, cells: Sequence[Cell], moments: Sequence[Moment | None]
    ) -> tuple[list[Moment | None], list[str | None]]:
        """One panel a day, unless a contract is quoted at several times of it: then one a time."""
        texts = [
            None if cell is None else str(moment or cell) if not isinstance(cell, str) else cell
            for cell, moment in zip(cells, moments, strict=True)
        ]
        if not any(moment is not None and moment.clock is not None for moment in moments):
            return list(moments), texts
        by_day: dict[object, dict[object, Moment | None]] = {}
        several = False
        keys = [self._contract_key(i) for i in range(len(cells))]
        for key, moment in zip(keys, moments, strict=True):
            if moment is None or moment.clock is None:
                continue
            of_day = by_day.setdefault(moment.day, {})
            several = several or (key in of_day and of_day[key] != moment)
            of_day.setdefault(key, moment)
        if several:
            return list(moments), texts
        latest: dict[object, Moment] = {}
        for moment in moments:
            if moment is not None:
                latest[moment.day] = later(latest.get(moment.day, moment), moment)
        days = [None if moment is None else latest[moment.day] for moment in moments]
        alone = len(set(texts)) == len(latest)
        return days, texts if alone else [None if m is None else m.day.isoformat() for m in moments]

    def _contract_key(self, i: int) -> tuple[object, ...]:
        row, side = self.entries[i]
        fields = ("underlying", "contract", "expiry", "tenor", "strike", "type")
        found = [self.columns.find(field, side) for field in fields]
        return side, *(None if column is None else self.table.rows[row][column.index] for column in found)

    # Panels --------------------------------------------------------------------------------------------------------

    def _underlyings(self) -> list[str | None]:
        column = self.columns.find("underlying")
        if column is not None:
            cells = [self.table.rows[row][column.index] for row, _ in self.entries]
            return [None if cell is None else str(cell) for cell in cells]
        if self._has_contracts():
            return [None if c is None else PARENTS.get(c.root, c.root) for c in self.contracts]
        return [self.settings.underlying] * len(self.entries)

    def _note_what_is_passed_over(self) -> None:
        other = VOLS if self.kind == "prices" else PRICES if self.kind == "vols" else ()
        passed = [*self.columns.ignored, *(c.name for (field, _), c in self.columns.of.items() if field in other)]
        if passed:
            detail = f"Nothing was taken from the columns {listed(passed)}."
            self.cautions.append(Caution("columns_ignored", detail))
        if self.table.skipped:
            lines = ", ".join(map(str, self.table.skipped[:10]))
            detail = f"Lines that are no quotes were passed over in {self.table.source}: {lines}."
            self.cautions.append(Caution("lines_ignored", detail))

    def _panel(
        self,
        underlying: str | None,
        as_of: str | None,
        at: IntVector,
        values: Mapping[str, Vector],
        side: IntVector,
        expirations: Sequence[Moment | float | None],
        moments: Sequence[Moment | None],
    ) -> Quotes:
        table, settings = self.table, self.settings
        cautions = list(self.cautions)
        contracts = [self.contracts[i] for i in at.tolist()]
        roots = [None if c is None else c.root for c in contracts]
        expiry = np.full(at.size, np.nan)
        clocks: dict[Moment, Clock] = {}
        names: list[str] = []
        years: dict[tuple[Moment, Moment, str | None], float] = {}
        for j, i in enumerate(at.tolist()):
            expiration, moment = expirations[i], moments[i]
            if isinstance(expiration, Moment):
                names.append(str(expiration))
                if moment is not None:
                    key = moment, expiration, roots[j] or underlying
                    if key not in years:
                        years[key] = clocks.setdefault(moment, Clock(settings, moment)).years(expiration, key[2])
                    expiry[j] = years[key]
            else:
                names.append("" if expiration is None else f"{expiration:.6g}")
                expiry[j] = np.nan if expiration is None else expiration
        dated = [
            (root or underlying, e)
            for root, i in zip(roots, at.tolist(), strict=True)
            if isinstance(e := expirations[i], Moment)
        ]
        if settings.settlement == "close" and len(set(roots)) > 1 and mixed_settlement(dated):
            detail = "Options settled at the open and at the close expire on one day: `settlement` tells them apart."
            cautions.append(Caution("settlement_mixed", detail))
        timed = next((m for m in (moments[i] for i in at.tolist()) if m is not None and m.clock is not None), None)
        if timed is not None and settings.time_zone is None and any(e.clock is None for _, e in dated):
            detail = (
                "Expiries count to 16:00 in New York, or 9:30 where options settle at the open: `time_zone` and "
                "`settlement` say otherwise."
            )
            cautions.append(Caution("settlement_time_assumed", detail))
        sound = np.isfinite(expiry)
        for field in ("strike", "forward"):
            if self.kind == "vols" and self.columns.has(field):
                sound &= np.isfinite(values[field][at])
        if self.kind == "prices":
            sound &= np.isfinite(values["strike"][at])
        label = " ".join(filter(None, (underlying, as_of))) or Path(table.source).stem
        n_expiries = np.unique(expiry[np.isfinite(expiry)]).size
        if settings.forward is not None and n_expiries > 1:
            raise question(
                "forward", f"must stand in a column, since {label} has {n_expiries} expiries and one forward each."
            )
        if self.kind == "prices":
            self._require_one_level(values, at, expiry)
        quotes = Quotes(
            source=table.source,
            label=label,
            underlying=underlying,
            as_of=as_of,
            index=np.arange(at.size),
            n_rows=at.size,
            expiry=expiry,
            expiration=names,
            root=roots,
            side=side[at],
            values={name: column[at] for name, column in values.items()},
            cautions=tuple(cautions),
            kind=self.kind,
            us_listed=any(c is not None and c.listed_in_the_us and c.root not in EUROPEAN_ROOTS for c in contracts),
            in_coin=any(c is not None and c.in_coin for c in contracts),
            problem=lambda i, field, needed: self._problem(int(at[i]), field, needed),
        )
        if sound.all():
            return quotes
        if not sound.any():
            needed = f"must hold a quote with expiry, strike and forward, but none of its {at.size} rows has all three."
            if self.kind == "prices":
                needed = f"must hold a quote with expiry and strike, but none of its {at.size} rows has both."
            raise InvalidInput(Problem((table.source, label), f"Panel {label} of {table.source} {needed}"))
        what = "no expiry or strike" if self.kind == "prices" else "no expiry, strike or forward"
        lost = [Exclusion(i, f"missing quote: {what}") for i in np.flatnonzero(~sound).tolist()]
        return quotes.taken(np.flatnonzero(sound), lost)

    def _require_one_level(self, values: Mapping[str, Vector], at: IntVector, expiry: Vector) -> None:
        """raises  InvalidInput, asking which is which, if every expiry has one strike and many forwards, or spots"""
        for name in ("forward", "spot"):
            if name not in values or (self.settings.columns and {"strike", name} <= set(self.settings.columns)):
                continue
            groups = [at[expiry == t] for t in np.unique(expiry[np.isfinite(expiry)])]
            several = [group for group in groups if np.unique(values[name][group]).size > 2]
            if several and all(np.unique(values["strike"][group]).size == 1 for group in groups):
                needed = f"must say which column is which (strike={name},{name}=strike to exchange them)"
                raise question("columns", f"{needed}, since each expiry has one strike and many of `{name}`.")

    def _problem(self, entry: int, field: str, needed: str) -> Problem:
        row, side = self.entries[entry]
        column = self.columns.find(field, side)
        return self.table.problem(row, field if column is None else column.name, needed)


def _side_of(cell: Cell, column: Column) -> Side | None:
    text = str(cell).strip().lower()
    if column.said == "is_call":
        return {"true": "call", "1": "call", "1.0": "call", "false": "put", "0": "put", "0.0": "put"}.get(text)  # type: ignore[return-value]
    return _TYPES.get(text)
