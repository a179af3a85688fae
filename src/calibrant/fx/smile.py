"""A smile through the few vols of one expiry, as solving for a market strangle needs one.

Vols between the pillars are those of the hyperbola w^2 = w (a + b k) + c k^2 / 4, which is an SSVI slice with
a = theta, b = rho psi, c = psi^2 (1 - rho^2) and linear in these three, plus a natural cubic spline through what it
misses the pillars by. Pillars that are of an SSVI slice give that slice back.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from ..arrays import Vector


def slice_through(log_moneyness: Vector, total_variance: Vector) -> Vector:
    """(a, b, c) of the hyperbola nearest to the pillars by relative error of w; c >= 0, and b = 0 through one pillar.

    log_moneyness   (n,)
    total_variance  (n,) > 0
    """
    k, w = log_moneyness, total_variance
    # The equation over w^2: every pillar's error is then a relative one.
    columns = np.column_stack((1.0 / w, k / w, (0.5 * k / w) ** 2))[:, : min(k.size, 3)]
    abc = np.zeros(3)
    abc[: columns.shape[1]] = np.linalg.lstsq(columns, np.ones(k.size), rcond=None)[0]
    if abc[2] < 0.0:
        abc[:2], abc[2] = np.linalg.lstsq(columns[:, :2], np.ones(k.size), rcond=None)[0], 0.0
    return abc


@dataclass(frozen=True)
class Smile:
    """Vols of one expiry by log-moneyness; beyond the outermost pillars what the slice misses stays as it is there."""

    expiry: float
    abc: Vector
    """(3,) the slice."""
    missed: CubicSpline | None
    """Vol less the slice's; None where there are fewer than two pillars."""

    @classmethod
    def through(cls, expiry: float, log_moneyness: Vector, vol: Vector) -> "Smile":
        """log_moneyness (n,) ascending, vol (n,) > 0."""
        plain = cls(expiry, slice_through(log_moneyness, vol * vol * expiry), None)
        if log_moneyness.size < 2:
            return plain
        return cls(expiry, plain.abc, CubicSpline(log_moneyness, vol - plain.vol(log_moneyness), bc_type="natural"))

    def vol(self, log_moneyness: Vector) -> Vector:
        a, b, c = self.abc
        linear = a + b * log_moneyness
        w = 0.5 * (linear + np.sqrt(linear * linear + c * log_moneyness**2))
        vol: Vector = np.sqrt(w / self.expiry)
        if self.missed is not None:
            vol = vol + self.missed(np.clip(log_moneyness, self.missed.x[0], self.missed.x[-1]))
        return vol
