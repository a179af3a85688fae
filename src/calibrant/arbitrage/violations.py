"""What an arbitrage check answers: where, which kind, by how much, and what it cannot see."""

from typing import Literal, NamedTuple, get_args

import numpy as np

from ..arrays import Matrix, Vector
from ..caution import Caution

Kind = Literal["bounds", "vertical", "butterfly", "calendar"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of the rows of every excess matrix: from one option against the underlying to two expiries.

Lee's (2004) bound on the wings, |dw/dk| <= 2, has no kind of its own: at a finite strike it is implied by the price
conditions wherever w < 2 |k|, and is no condition at all where w is larger. A right wing that is too steep is a call
dearer than one of lower strike, a `vertical`; a left wing that is too steep is a put dearer per unit of strike than one
of higher strike, a `butterfly` whose lower strike is zero, where the call is worth the forward.
"""
BOUNDS, VERTICAL, BUTTERFLY, CALENDAR = range(len(KINDS))

MAX_REPORTED = 20
"""Violations that a verdict lists; it counts all of them."""


class Violation(NamedTuple):
    """A trade that costs nothing or less and pays something; named after the option that is sold too dear in it."""

    kind: Kind
    """Which portfolio: against the underlying, one other strike, two other strikes, or a later expiry."""
    expiry: float
    """Years. Of a calendar violation, the earlier expiry: its option is the one that is sold."""
    log_moneyness: float
    """log(strike / forward) of the option that is sold."""
    size: float
    """The profit per option sold, undiscounted, in units of the forward."""
    quote: int | None
    """Position in the panel; None on a surface."""


class Verdict(NamedTuple):
    """The outcome of one check."""

    free: bool
    """No violation exceeds the numerical error, and that error is known: False of what could not be verified."""
    n_violations: int
    """How many exceed it."""
    violations: tuple[Violation, ...]
    """The largest `MAX_REPORTED` of them, largest first."""
    numerical_error: float
    """What the computed sizes may be wrong by, in units of the forward; nothing smaller is reported."""
    unverified: str | None = None
    """Why nothing is known, as a clause; None of a verdict that can be relied on."""


def unverified(numerical_error: float, why: str) -> Verdict:
    """The verdict where the numbers say nothing."""
    return Verdict(free=False, n_violations=0, violations=(), numerical_error=numerical_error, unverified=why)


def surface_caution(surface: Verdict) -> Caution | None:
    """What to say beside a surface that could not be verified."""
    if surface.unverified is None:
        return None
    return Caution(
        "surface_not_verified",
        f"Whether the fitted surface is free of arbitrage could not be verified: {surface.unverified}. By theory the "
        "model is free of it, so what is in doubt are its prices at these parameters: look at them before they are "
        "used, or narrow `bounds`.",
    )


def verdict_of(
    excess: Matrix, expiry: Vector, log_moneyness: Vector, numerical_error: float, *, of_quotes: bool
) -> Verdict:
    """The verdict on computed sizes.

    excess           (n_kinds, n), size of each kind at each point, in the order of `KINDS`; not above zero where none
    expiry           (n,), years
    log_moneyness    (n,)
    numerical_error  in units of the forward; a size must exceed it to count
    of_quotes        the points are the quotes of a panel
    """
    kind, point = np.nonzero(excess > numerical_error)
    size = excess[kind, point]
    # Every key takes part, so that equal sizes do not come out in an order of their own.
    order = np.lexsort((kind, log_moneyness[point], expiry[point], -size))[:MAX_REPORTED]
    return Verdict(
        free=kind.size == 0 and bool(np.isfinite(numerical_error)),
        n_violations=int(kind.size),
        violations=tuple(
            Violation(
                kind=KINDS[kind[i]],
                expiry=float(expiry[point[i]]),
                log_moneyness=float(log_moneyness[point[i]]),
                size=float(size[i]),
                quote=int(point[i]) if of_quotes else None,
            )
            for i in order
        ),
        numerical_error=float(numerical_error),
    )
