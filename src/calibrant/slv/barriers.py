"""Barrier contracts: what is paid, when, and their Black-Scholes value."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..arrays import Vector
from ..errors import InvalidInput, Path, Problem, shown
from ..fx.conventions import Conventions
from .surface import Surface, implied_vol
from .touch import Direction, double_no_touch, one_touch

Kind = Literal["one_touch", "no_touch"]
Paid = Literal["at_expiry", "at_hit"]
Payout = Literal["domestic", "foreign"]


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """One unit of currency paid if a level is touched before expiry, or if none is; monitored continuously."""

    expiry: float
    """Years."""
    level: float | None = None
    """Of the spot; or instead"""
    levels: tuple[float, float] | None = None
    """a lower and an upper one, of a double no-touch."""
    direction: Direction | None = None
    """`up` or `down`: on which side of the spot `level` lies."""
    kind: Kind = "one_touch"
    paid: Paid = "at_expiry"
    payout: Payout = "domestic"

    @property
    def low(self) -> float:
        """The level below the spot, 0 if there is none."""
        if self.levels is not None:
            return self.levels[0]
        return self.level if self.level is not None and self.direction == "down" else 0.0

    @property
    def high(self) -> float:
        """The level above the spot, infinite if there is none."""
        if self.levels is not None:
            return self.levels[1]
        return self.level if self.level is not None and self.direction == "up" else math.inf


def require_barrier(barrier: Barrier, spot: float, path: Path = ()) -> None:
    """raises  InvalidInput naming every field that makes it no contract, or one that is decided already"""
    problems = []

    def wrong(field: str, needed: str) -> None:
        problems.append(Problem.at((*path, field), needed))

    if not 0.0 < barrier.expiry < math.inf:
        wrong("expiry", f"must be > 0 years, but is {barrier.expiry:g}.")
    for field, value, allowed in (
        ("kind", barrier.kind, ("one_touch", "no_touch")),
        ("paid", barrier.paid, ("at_expiry", "at_hit")),
        ("payout", barrier.payout, ("domestic", "foreign")),
    ):
        if value not in allowed:
            wrong(field, f"must be one of {', '.join(allowed)}, but is {shown(value)!r}.")
    if barrier.kind == "no_touch" and barrier.paid == "at_hit":
        wrong("paid", "must be `at_expiry` of a no-touch: it pays when nothing has been hit.")
    if barrier.levels is not None:
        if barrier.level is not None or barrier.direction is not None:
            wrong("levels", "must be given without `level` and `direction`.")
        if barrier.kind != "no_touch":
            wrong("kind", f"must be `no_touch` with two `levels`, but is {shown(barrier.kind)!r}.")
        if len(barrier.levels) != 2 or not 0.0 < barrier.levels[0] < barrier.levels[1] < math.inf:
            wrong("levels", f"must be a rising pair of spots > 0, but is {shown(list(barrier.levels))}.")
        elif not barrier.levels[0] < spot < barrier.levels[1]:
            came = f"{barrier.levels[0]:g} and {barrier.levels[1]:g}"
            wrong("levels", f"must lie on both sides of the spot, {spot:g}, but are {came}: already hit.")
    elif barrier.level is None:
        wrong("level", "is required, but is absent (or `levels`, a pair, of a double no-touch).")
    elif not 0.0 < barrier.level < math.inf:
        wrong("level", f"must be a spot > 0, but is {barrier.level:g}.")
    elif barrier.direction not in ("up", "down"):
        wrong("direction", f"must be `up` or `down`, but is {shown(barrier.direction)!r}.")
    elif (barrier.level > spot) != (barrier.direction == "up") or barrier.level == spot:
        side = "above" if barrier.direction == "up" else "below"
        needed = f"must lie {side} the spot, {spot:g}, with direction `{barrier.direction}`, but is {barrier.level:g}"
        wrong("level", f"{needed}: already hit.")
    if problems:
        raise InvalidInput(*problems)


def black_scholes(
    barrier: Barrier, surface: Surface, conventions: Conventions | None = None, spot: float | None = None
) -> float:
    """The closed form at the at-the-money vol of the barrier's expiry: its theoretical value, "TV".

    The rates are the zero rates to expiry.

    conventions  what at the money means, see `at_the_money_vol`
    spot         another than the surface's, at the same vol
    """
    market, t = surface.market, barrier.expiry
    spot = market.spot if spot is None else spot
    vol = at_the_money_vol(surface, t, conventions)
    rates = float(market.domestic.integral(t)) / t, float(market.foreign.integral(t)) / t
    foreign = barrier.payout == "foreign"
    if barrier.levels is not None:
        return double_no_touch(spot, *barrier.levels, t, vol, *rates, foreign=foreign)
    assert barrier.level is not None
    assert barrier.direction is not None
    at_hit = barrier.paid == "at_hit"
    touched = one_touch(spot, barrier.level, barrier.direction, t, vol, *rates, at_hit=at_hit, foreign=foreign)
    if barrier.kind == "one_touch":
        return touched
    return (spot if foreign else 1.0) * math.exp(-rates[1 if foreign else 0] * t) - touched


def at_the_money_vol(surface: Surface, expiry: float, conventions: Conventions | None = None) -> float:
    """At the forward, the spot, or by default the strike of the straddle without a delta: ln(K / F) = vol^2 t / 2, and
    minus that where the delta is premium-adjusted.
    """
    conventions = conventions or Conventions(premium_adjusted=False)
    if conventions.atm != "delta_neutral":
        market = surface.market
        k = 0.0 if conventions.atm == "forward" else math.log(market.spot) - float(market.log_forward(expiry))
        return float(implied_vol(surface, k, expiry))
    half = -0.5 if conventions.premium_adjusted else 0.5
    k = 0.0
    for _ in range(50):
        vol = float(implied_vol(surface, k, expiry))
        k = half * vol * vol * expiry
    return vol


def log_levels(barriers: tuple[Barrier, ...], far: float) -> tuple[Vector, Vector]:
    """(n_barriers,) ln of the lower and the upper levels, -`far` and `far` for none."""
    low = np.array([math.log(b.low) if b.low > 0.0 else -far for b in barriers])
    high = np.array([math.log(b.high) if b.high < math.inf else far for b in barriers])
    return low, high
