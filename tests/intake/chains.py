"""Chains whose truth is known: calls and puts priced by Black's formula at the vols of a smile."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from calibrant.arrays import Vector
from calibrant.black import call_price, put_price

AS_OF = date(2026, 3, 2)
EXPIRATIONS = (date(2026, 4, 17), date(2026, 6, 19), date(2026, 12, 18))
SPOT, RATE, YIELD = 500.0, 0.04, 0.015


@dataclass(frozen=True, kw_only=True)
class Option:
    expiration: date
    side: str
    """`C` or `P`."""
    strike: float
    bid: float
    ask: float
    vol: float
    """At which Black's formula gives the middle of bid and ask before they were rounded."""


def years(expiration: date) -> float:
    return (expiration - AS_OF).days / 365.0


def forward_at(expiry: float) -> float:
    return SPOT * math.exp((RATE - YIELD) * expiry)


def discount_at(expiry: float) -> float:
    return math.exp(-RATE * expiry)


def smile(k: Vector, expiry: float) -> Vector:
    z = k / math.sqrt(expiry)
    return np.asarray(0.2 - 0.12 * z + 0.15 * z * z / (1.0 + np.abs(z)))


def chain(
    expirations: Sequence[date] = EXPIRATIONS,
    strikes: Sequence[float] = tuple(np.arange(400.0, 601.0, 10.0)),
    digits: int = 2,
) -> list[Option]:
    """Calls and puts at every strike, at a spread of half a vol point, rounded to so many digits."""
    found = []
    for expiration in expirations:
        t = years(expiration)
        level, discount = forward_at(t), discount_at(t)
        k = np.log(np.array(strikes) / level)
        vols = smile(k, t)
        for side, price in (("C", call_price), ("P", put_price)):
            bid, ask = (discount * level * price(k, t, vols + move) for move in (-0.0025, 0.0025))
            found += [
                Option(
                    expiration=expiration,
                    side=side,
                    strike=float(strike),
                    bid=round(float(b), digits),
                    ask=round(float(a), digits),
                    vol=float(vol),
                )
                for strike, b, a, vol in zip(strikes, bid, ask, vols, strict=True)
            ]
    return sorted(found, key=lambda option: (option.expiration, option.strike, option.side))


def truth(options: Sequence[Option]) -> dict[tuple[float, float], float]:
    """Vols by expiry in years and strike."""
    return {(years(option.expiration), option.strike): option.vol for option in options}


def weekday(days: int) -> date:
    return AS_OF + timedelta(days=days)


def rows_as(options: Sequence[Option], **columns: Any) -> list[dict[str, Any]]:
    """A row an option; each column is a function of it, or the same for all."""
    return [{name: of(option) if callable(of) else of for name, of in columns.items()} for option in options]
