"""From the quotes of a currency desk, at-the-money vols, risk reversals and butterflies by delta, to strikes and vols.

A risk reversal is the vol of the call less that of the put of the stated delta, each at its own strike. A market
strangle is a condition on prices: the call and the put whose strikes have the stated delta at the one vol atm + bf cost
by the smile what they cost at that vol. It is solved for the wing vols together, since one smile passes through all.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import newton

from ..arrays import IntVector, Vector
from ..black import time_value, vega
from ..errors import InvalidInput, Path, Problem, shown
from ..market import Market
from ..quote_columns import column
from .conventions import Conventions
from .delta import DeltaTerms, Sign, log_moneyness_at_the_money, log_moneyness_of_delta
from .smile import Smile

LARGEST_VOL = 5.0
_SIGNS: tuple[Sign, Sign] = (-1, 1)
_STEPS = 40
_SOLVED = 1e-12
"""Of vol: the strangle conditions are met."""
_DIFFERENCE = 1e-6
"""Of vol, by which a wing is moved to see how the conditions move."""


class Pillars(NamedTuple):
    """Strikes and vols, one a quoted option, by expiry and then by strike; each (n,)."""

    expiry: Vector
    """Years."""
    strike: Vector
    forward: Vector
    log_moneyness: Vector
    vol: Vector
    name: tuple[str, ...]
    """`25P`, the 25-delta put; `ATM`; `10C`."""
    row: tuple[int, ...]
    """Its expiry's place in the request."""


class SmileQuotes(NamedTuple):
    """What a smile is quoted as."""

    atm: float
    rr: dict[int, float]
    """By delta in per cent."""
    bf: dict[int, float]


class _Row(NamedTuple):
    """The quotes of one expiry; where a delta's butterfly is None its wing vols are given."""

    atm: float
    deltas: tuple[int, ...]
    """Per cent, descending."""
    rr: Vector
    bf: Vector
    """(n_deltas,) the smile's butterfly, or what it is to be found from."""
    strangle: tuple[bool, ...]
    """Whether a butterfly is a market strangle."""


def quotes_to_strikes(
    market: Market,
    expiry: ArrayLike,
    quotes: Mapping[str, Any],
    conventions: Conventions,
    path: Path = (),
) -> Pillars:
    """Strikes and vols of what is quoted by delta.

    market       spot and the two rates
    expiry       (n_expiries,) years > 0
    quotes       columns (n_expiries,) of decimals: `atm`, and for a delta in per cent `rr25` with `bf25`, or `call25`
                 with `put25`, the wing vols; None and NaN where an expiry has no such quote
    conventions  see `conventions_of`
    path         where the columns stand in the request
    raises       InvalidInput naming each field that is missing, no vol, expired, or that no smile can have

    Strikes have their delta to 1e-12, and market strangles their price to 1e-12 of vol
    (test_strikes_have_the_deltas_they_are_quoted_by, test_market_strangles_have_the_price_of_their_quote).
    """
    expiries, rows = _rows(expiry, quotes, conventions, path)
    found: list[tuple[float, float, float, float, float, str, int]] = []
    problems: list[Problem] = []
    for i, (t, row) in enumerate(zip(expiries.tolist(), rows, strict=True)):
        forward = float(market.forward(t))
        terms = DeltaTerms.of(conventions, t, float(market.foreign_discount(t)))
        try:
            at_the_money = log_moneyness_at_the_money(conventions, t, row.atm, math.log(market.spot / forward))
            k, vol, names = _solved(terms, at_the_money, row)
        except _NoSmile as none:
            problems.append(Problem.at((*path, none.field, i), none.needed))
            continue
        for x, sigma, name in zip(k, vol, names, strict=True):
            found.append((t, forward * math.exp(x), forward, x, sigma, name, i))
    if problems:
        raise InvalidInput(*problems)
    found.sort(key=lambda pillar: (pillar[0], pillar[3]))
    years, strikes, forwards, moneyness, vols = np.array([pillar[:5] for pillar in found]).T
    called, places = tuple(pillar[5] for pillar in found), tuple(pillar[6] for pillar in found)
    return Pillars(years, strikes, forwards, moneyness, vols, called, places)


def quotes_of(
    vol: Callable[[Vector], Vector],
    market: Market,
    expiry: float,
    conventions: Conventions,
    deltas: tuple[int, ...] = (25, 10),
) -> SmileQuotes:
    """The quotes of a smile, the inverse of `quotes_to_strikes`.

    vol     (log_moneyness (n,)) -> vols (n,)
    raises  RuntimeError if the smile has no option of such a delta
    """
    terms = DeltaTerms.of(conventions, expiry, float(market.foreign_discount(expiry)))
    spot_moneyness = math.log(market.spot / float(market.forward(expiry)))

    def at(k: float) -> float:
        return float(vol(np.array([k]))[0])

    def strike(sign: Sign, delta: int, sigma: float) -> float:
        k = log_moneyness_of_delta(terms, sign, 0.01 * delta, sigma)
        if k is None:
            raise RuntimeError(f"No strike has a {delta}-delta at a vol of {sigma:g}.")
        return k

    def settled(place: Callable[[float], float]) -> float:
        """Where the strike by the smile's vol is the strike itself."""
        start = place(at(0.0))
        return float(newton(lambda k: place(at(k)) - k, start, tol=1e-13, maxiter=100))

    def strangle(delta: int) -> float:
        """The one vol of its price."""

        def dearer(sigma: float) -> float:
            k = np.array([strike(-1, delta, sigma), strike(1, delta, sigma)])
            return float(_dearer(k, vol(k), sigma, expiry))

        return float(newton(dearer, at(0.0), tol=1e-13, maxiter=100))

    atm = at(settled(lambda sigma: log_moneyness_at_the_money(conventions, expiry, sigma, spot_moneyness)))
    rr, bf = {}, {}
    for delta in deltas:
        put, call = (at(settled(partial(strike, sign, delta))) for sign in _SIGNS)
        rr[delta] = call - put
        smile = conventions.butterfly == "smile"
        bf[delta] = (0.5 * (call + put) if smile else strangle(delta)) - atm
    return SmileQuotes(atm, rr, bf)


def _dearer(log_moneyness: Vector, vol: Vector, single: float, expiry: float) -> float:
    """By how much vol a strangle is dearer at the smile's vols than at a single one."""
    root = math.sqrt(expiry)
    excess = time_value(log_moneyness, vol * root) - time_value(log_moneyness, np.full(2, single * root))
    return float(excess.sum() / vega(log_moneyness, expiry, single).sum())


class _NoSmile(Exception):
    """No smile has these quotes."""

    def __init__(self, field: str, needed: str) -> None:
        super().__init__(needed)
        self.field = field
        self.needed = needed


def _solved(terms: DeltaTerms, at_the_money: float, row: _Row) -> tuple[Vector, Vector, list[str]]:
    """Log-moneyness, vols and names of the pillars of one expiry, ascending."""
    strangle = np.flatnonzero(row.strangle)
    names = [*(f"{d}P" for d in row.deltas[::-1]), "ATM", *(f"{d}C" for d in row.deltas)]
    singles = [row.atm + float(row.bf[j]) for j in strangle]
    wide = []
    for j, single in zip(strangle.tolist(), singles, strict=True):
        field, delta = f"bf{row.deltas[j]}", row.deltas[j]
        if not single > 0.0:
            raise _NoSmile(field, f"must leave `atm` + `{field}` above 0, but that is {single:g}.")
        wide.append(np.array([_strike(terms, sign, delta, single, field) for sign in _SIGNS]))
        if not wide[-1][0] < wide[-1][1]:
            raise _NoSmile(field, "must be a strangle whose put strike is below its call strike, but they are crossed.")

    def pillars(flies: Vector) -> tuple[Vector, Vector]:
        put, call = row.atm + flies - 0.5 * row.rr, row.atm + flies + 0.5 * row.rr
        for j, delta in enumerate(row.deltas):
            wing = "put" if put[j] < call[j] else "call"
            lower = min(float(put[j]), float(call[j]))
            if not lower > 0.0:
                field = f"rr{delta}"
                raise _NoSmile(field, f"must leave the vol of the {delta}-delta {wing} above 0, but that is {lower:g}.")
        k = [
            *(_strike(terms, -1, d, float(v), f"put{d}") for d, v in zip(row.deltas[::-1], put[::-1], strict=True)),
            at_the_money,
            *(_strike(terms, 1, d, float(v), f"call{d}") for d, v in zip(row.deltas, call, strict=True)),
        ]
        for j in range(len(k) - 1):
            if not k[j] < k[j + 1]:
                which = re.sub("[PC]", "", names[j] if names[j] != "ATM" else names[j + 1])
                detail = (
                    f"must put the strikes in their order, but {names[j]} is above {names[j + 1]}: they are crossed."
                )
                raise _NoSmile(f"bf{which}", detail)
        return np.array(k), np.concatenate((put[::-1], [row.atm], call))

    def missed(flies: Vector) -> Vector:
        smile = Smile.through(terms.expiry, *pillars(flies))
        pairs = zip(wide, singles, strict=True)
        return np.array([_dearer(k, np.maximum(smile.vol(k), 1e-6), single, terms.expiry) for k, single in pairs])

    flies = row.bf.copy()
    if strangle.size:
        flies[strangle] = _root(missed, flies, strangle, [f"bf{row.deltas[j]}" for j in strangle])
    return *pillars(flies), names


def _root(missed: Callable[[Vector], Vector], start: Vector, which: IntVector, fields: list[str]) -> Vector:
    """Newton's method from the strangles' own butterflies; a step is halved where it makes things worse."""
    flies = start.copy()
    off = missed(flies)
    for _ in range(_STEPS):
        if np.abs(off).max() < _SOLVED:
            break
        by = np.empty((off.size, off.size))
        for column_, j in enumerate(which):
            moved = flies.copy()
            moved[j] += _DIFFERENCE
            by[:, column_] = (missed(moved) - off) / _DIFFERENCE
        step = np.linalg.lstsq(by, -off, rcond=None)[0]
        for _ in range(_STEPS):
            moved = flies.copy()
            moved[which] += step
            try:
                trial = missed(moved)
            except _NoSmile:
                trial = None
            if trial is not None and np.abs(trial).max() < np.abs(off).max():
                break
            step = 0.5 * step
        else:
            break
        flies, off = moved, trial
    if np.abs(off).max() < 1e3 * _SOLVED:
        return flies[which]
    worst = int(np.argmax(np.abs(off)))
    needed = (
        f"must be a market strangle that some smile has, but none found is nearer than {abs(off[worst]):.2g} of vol."
    )
    raise _NoSmile(fields[worst], needed)


def _strike(terms: DeltaTerms, sign: Sign, delta: int, vol: float, field: str) -> float:
    k = log_moneyness_of_delta(terms, sign, 0.01 * delta, vol)
    if k is None:
        kind = "call" if sign > 0 else "put"
        needed = f"must be a vol at which some strike has a {delta}-delta {kind}, but at {vol:g} none has."
        raise _NoSmile(field, needed)
    return k


def _rows(
    expiry: ArrayLike, quotes: Mapping[str, Any], conventions: Conventions, path: Path
) -> tuple[Vector, list[_Row]]:
    """The expiries in years and their quotes, every one checked by itself.

    raises  InvalidInput with every problem found
    """
    years = np.atleast_1d(column(expiry, (*path, "expiry")))
    problems: list[Problem] = []
    columns: dict[str, Vector] = {}
    if years.ndim != 1 or not years.size:
        problems.append(Problem.at((*path, "expiry"), "must be a list of years, one at least."))
    problems += [
        Problem.at((*path, "expiry", i), f"must be > 0 years, but is {t:g}.")
        for i, t in enumerate(years.ravel().tolist())
        if not 0.0 < t < np.inf
    ]
    for name, values in quotes.items():
        if values is None:
            continue
        if name != "atm" and not re.fullmatch(r"(rr|bf|call|put)[1-9]\d?", name):
            known = "atm, and by delta in per cent rr25 with bf25, or call25 with put25"
            problems.append(Problem.at((*path, name), f"is not a quote by delta ({known})."))
            continue
        columns[name] = np.atleast_1d(column(values, (*path, name)))
        if columns[name].shape != years.shape:
            needed = f"must have as many values as `expiry` ({years.size}), but has {columns[name].size}."
            problems.append(Problem.at((*path, name), needed))
    if "atm" not in columns:
        problems.append(Problem.at((*path, "atm"), "is required, but is absent."))
    kinds = {name: re.sub(r"\D", "", name) for name in columns if name != "atm"}
    deltas = sorted({int(size) for size in kinds.values()}, reverse=True)
    for delta in deltas:
        if delta >= 50:
            name = next(name for name, size in kinds.items() if int(size) == delta)
            problems.append(Problem.at((*path, name), "must be of a delta below 50, the out-of-the-money options."))
        problems += _unpaired(columns, delta, path)
    if problems:
        raise InvalidInput(*problems)
    for i in range(years.size):
        problems += _unusable(columns, i, path)
    if problems:
        raise InvalidInput(*problems)
    return years, [_row(columns, deltas, i, conventions) for i in range(years.size)]


def _unpaired(columns: Mapping[str, Vector], delta: int, path: Path) -> list[Problem]:
    """Of a delta's columns: both of a pair are there, and of two pairs one."""
    there = [name for name in ("rr", "bf", "call", "put") if f"{name}{delta}" in columns]
    if there in (["rr", "bf"], ["call", "put"]):
        return []
    if len(there) > 1:
        needed = f"must be `rr{delta}` with `bf{delta}`, or `call{delta}` with `put{delta}`, but there are {there}."
        return [Problem.at((*path, f"{there[0]}{delta}"), needed)]
    other = {"rr": "bf", "bf": "rr", "call": "put", "put": "call"}[there[0]]
    return [Problem.at((*path, f"{other}{delta}"), f"is required beside `{there[0]}{delta}`, but is absent.")]


def _unusable(columns: Mapping[str, Vector], i: int, path: Path) -> list[Problem]:
    """What is wrong with the numbers of one expiry, each by itself."""
    problems = []
    for name, values in columns.items():
        value = float(values[i])
        if name[:2] in ("rr", "bf"):
            if np.isfinite(value) and not abs(value) <= LARGEST_VOL:
                needed = f"must be a difference of vols within +-{LARGEST_VOL:g}, but is {value:g}."
                problems.append(Problem.at((*path, name, i), needed))
            partner = ("bf" if name[:2] == "rr" else "rr") + name[2:]
            if np.isnan(value) and not np.isnan(columns[partner][i]):
                problems.append(Problem.at((*path, name, i), f"is required beside `{partner}`, but is absent."))
        elif name == "atm" and np.isnan(value):
            problems.append(Problem.at((*path, name, i), "is required, but is absent."))
        elif not (np.isnan(value) or 0.0 < value <= LARGEST_VOL):
            needed = f"must be a vol > 0 and at most {LARGEST_VOL:g}, but is {shown(f'{value:g}')}."
            problems.append(Problem.at((*path, name, i), needed))
        elif name != "atm":
            partner = ("put" if name.startswith("call") else "call") + re.sub(r"\D", "", name)
            if np.isnan(value) and not np.isnan(columns[partner][i]):
                problems.append(Problem.at((*path, name, i), f"is required beside `{partner}`, but is absent."))
    return problems


def _row(columns: Mapping[str, Vector], deltas: list[int], i: int, conventions: Conventions) -> _Row:
    atm = float(columns["atm"][i])
    quoted = []
    for delta in deltas:
        if f"rr{delta}" in columns:
            rr, bf = float(columns[f"rr{delta}"][i]), float(columns[f"bf{delta}"][i])
            strangle = conventions.butterfly == "market_strangle"
        else:
            call, put = float(columns[f"call{delta}"][i]), float(columns[f"put{delta}"][i])
            rr, bf, strangle = call - put, 0.5 * (call + put) - atm, False
        if np.isfinite(rr):
            quoted.append((delta, rr, bf, strangle))
    return _Row(
        atm,
        tuple(delta for delta, *_ in quoted),
        np.array([rr for _, rr, _, _ in quoted]),
        np.array([bf for _, _, bf, _ in quoted]),
        tuple(strangle for *_, strangle in quoted),
    )
