"""Spot and rates: what turns a log-moneyness into a strike, and a payoff into its present value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Vector


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Zero rates, continuously compounded: constant forward rates between the pillars, the last rate beyond them."""

    expiry: Vector
    """(n,) years, ascending and > 0."""
    zero: Vector
    """(n,) rate from today to that expiry, a year."""

    @classmethod
    def flat(cls, rate: float) -> "Curve":
        return cls(expiry=np.array([1.0]), zero=np.array([rate]))

    def integral(self, expiry: ArrayLike) -> Vector:
        """The rate times years until `expiry`, of any shape: a discount factor is exp(-integral)."""
        t = np.asarray(expiry, np.float64)
        inside = np.interp(t, np.append(0.0, self.expiry), np.append(0.0, self.zero * self.expiry))
        integral: Vector = np.where(t > self.expiry[-1], self.zero[-1] * t, inside)
        return integral


@dataclass(frozen=True, kw_only=True)
class Market:
    """A pair's spot and its two curves; of a stock, the foreign curve is the dividend yield."""

    spot: float
    """Units of domestic currency for one of the foreign."""
    domestic: Curve
    foreign: Curve

    @classmethod
    def flat(cls, spot: float, domestic_rate: float, foreign_rate: float) -> "Market":
        return cls(spot=spot, domestic=Curve.flat(domestic_rate), foreign=Curve.flat(foreign_rate))

    def forward(self, expiry: ArrayLike) -> Vector:
        return np.exp(self.log_forward(expiry))

    def log_forward(self, expiry: ArrayLike) -> Vector:
        log_forward: Vector = np.log(self.spot) + self.domestic.integral(expiry) - self.foreign.integral(expiry)
        return log_forward

    def discount(self, expiry: ArrayLike) -> Vector:
        """Of domestic currency."""
        return np.exp(-self.domestic.integral(expiry))

    def foreign_discount(self, expiry: ArrayLike) -> Vector:
        return np.exp(-self.foreign.integral(expiry))
