"""Deltas of currency options and the strikes that have them (Reiswich & Wystup 2010; Clark 2011, chapter 3).

With x = log(strike / forward), s = vol sqrt(expiry), d1 = -x / s + s / 2, d2 = d1 - s and a sign that is 1 of a call
and -1 of a put, a forward delta is sign N(sign d1), premium-adjusted sign e^x N(sign d2); a spot delta is that times
the foreign discount factor. As a strike rises, a premium-adjusted call's delta rises to a maximum before it falls: the
strike meant is the one right of it, the out-of-the-money one.
"""

import math
from typing import Literal, NamedTuple

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from .conventions import Conventions

Sign = Literal[1, -1]
"""1 of a call, -1 of a put."""

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_TOLERANCE = 1e-14


class DeltaTerms(NamedTuple):
    """What deltas of one expiry depend on besides vol and strike."""

    expiry: float
    """Years."""
    scale: float
    """The foreign discount factor of spot deltas, 1 of forward deltas."""
    premium_adjusted: bool

    @classmethod
    def of(cls, conventions: Conventions, expiry: float, foreign_discount: float) -> "DeltaTerms":
        scale = foreign_discount if conventions.spot_delta_at(expiry) else 1.0
        return cls(expiry, scale, conventions.premium_adjusted)


def delta(terms: DeltaTerms, sign: Sign, log_moneyness: float, vol: float) -> float:
    """Signed: below zero of a put."""
    s = vol * math.sqrt(terms.expiry)
    d1 = -log_moneyness / s + 0.5 * s
    if terms.premium_adjusted:
        return float(sign * terms.scale * math.exp(log_moneyness) * ndtr(sign * (d1 - s)))
    return float(sign * terms.scale * ndtr(sign * d1))


def log_moneyness_of_delta(terms: DeltaTerms, sign: Sign, size: float, vol: float) -> float | None:
    """Where the delta has that size, 0.25 of a 25-delta put; None where no strike has it.

    error  < 1e-12 in log-moneyness, relative to vol sqrt(expiry)
    """
    target = size / terms.scale
    s = vol * math.sqrt(terms.expiry)
    if not terms.premium_adjusted:
        return None if target >= 1.0 else float(s * (0.5 * s - sign * ndtri(target)))
    aim = math.log(target)

    def excess(d2: float) -> float:
        """Of log |delta| over the one wanted, by d2, of which x = -s (d2 + s / 2)."""
        return float(-s * (d2 + 0.5 * s) + log_ndtr(sign * d2)) - aim

    if sign < 0:
        # Rises with the strike without bound: d2 from where N(-d2) is nothing to where the strike alone is enough.
        low, high = -max(40.0, -2.0 * aim / s), 40.0
        while excess(low) < 0.0:
            low *= 2.0
        return -s * (float(brentq(excess, low, high, xtol=_TOLERANCE)) + 0.5 * s)

    def slope(d2: float) -> float:
        """n(d2) / N(d2) - s, zero at the call's maximum."""
        return math.exp(-0.5 * d2 * d2 - _LOG_SQRT_2PI - float(log_ndtr(d2))) - s

    top = float(brentq(slope, -s, 38.0, xtol=_TOLERANCE))
    if excess(top) < 0.0:
        return None
    low = min(top, 0.0) - 1.0
    while excess(low) > 0.0:
        low *= 2.0
    return -s * (float(brentq(excess, low, top, xtol=_TOLERANCE)) + 0.5 * s)


def log_moneyness_at_the_money(conventions: Conventions, expiry: float, vol: float, spot_moneyness: float) -> float:
    """Of the quote `atm`.

    spot_moneyness  log(spot / forward)
    """
    match conventions.atm:
        case "forward":
            return 0.0
        case "spot":
            return spot_moneyness
        case "delta_neutral":
            half = 0.5 * vol * vol * expiry
            return -half if conventions.premium_adjusted else half
